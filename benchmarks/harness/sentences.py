"""Texts that need no data set: to calibrate quantisers with, and to compare vectors on."""

from __future__ import annotations

QUERY = "task: search result | query: "
DOCUMENT = "title: none | text: "

SENTENCES = (
    QUERY + "which planet is called the red planet",
    QUERY + "how do I renew my passport",
    QUERY + "symptoms of vitamin D deficiency",
    QUERY + "best time of year to plant garlic",
    QUERY + "python read csv file skip first row",
    QUERY + "wie lange muss ein Ei kochen",
    QUERY + "cuánto tarda la luz del sol en llegar a la tierra",
    QUERY + "富士山の高さ",
    QUERY + "как приготовить борщ",
    QUERY + "what does the error 'segmentation fault (core dumped)' mean?",
    DOCUMENT + "Mars is the fourth planet from the Sun. Iron oxide on its surface gives it a reddish colour, and two "
    "small moons, Phobos and Deimos, circle it.",
    DOCUMENT + "A passport can be renewed by post up to six months before it expires. Send the old one, two "
    "photographs of the right size, and the fee; it takes about three weeks.",
    DOCUMENT + "Garlic is planted in autumn, a few weeks before the ground freezes: single cloves, the pointed end up, "
    "as deep as the length of a finger and a hand's width apart. It is harvested in the next summer, when the lower "
    "leaves turn yellow.",
    DOCUMENT
    + "for i, row in enumerate(csv.reader(file)):\n    if i == 0:\n        continue\n    total += float(row[2])\n",
    DOCUMENT + "Ein weiches Ei braucht vier bis fünf Minuten, ein hartes etwa zehn. Wer es kalt abschreckt, hält das "
    "Garen an; leichter schälen lässt es sich davon nicht.",
    DOCUMENT
    + "La luz recorre los ciento cincuenta millones de kilómetros que nos separan del Sol en unos ocho minutos "
    "y veinte segundos.",
    DOCUMENT
    + "富士山は標高3776メートルで、日本で最も高い山である。静岡県と山梨県にまたがり、晴れた日には東京からも見える。",
    DOCUMENT + "Борщ варят на мясном бульоне: сначала картофель и капусту, потом тушёную свёклу с морковью и луком, а "
    "чеснок и зелень кладут в самом конце.",
    DOCUMENT + "يبلغ طول نهر النيل أكثر من ستة آلاف كيلومتر، ويجري من بحيرات وسط أفريقيا إلى البحر الأبيض المتوسط.",
    DOCUMENT + "गंगा हिमालय से निकलकर मैदानों से होती हुई बंगाल की खाड़ी में गिरती है।",
    DOCUMENT + "The committee met on Tuesday to discuss the budget for the coming year. Three members wanted to repair "
    "the roof of the library first; two thought that the heating of the school could not wait another winter. After "
    "two hours they agreed to ask for estimates for both, and to decide in a month. The treasurer reminded everybody "
    "that what was left of last year's money, some forty thousand, must be spent before June or be given back.",
    DOCUMENT + "A hash table stores pairs of keys and values in an array. A function of the key gives the place where "
    "the pair should lie; when two keys fall on one place, the second goes to the next free one, or each place holds "
    "a list. As long as the array is at most about two thirds full, finding, adding and removing a pair take a "
    "constant time on average, however many pairs there are. In the worst case, when all keys fall on one place, "
    "every search walks through all of them, which is why functions with a secret seed are used where the keys come "
    "from strangers.",
    "Hello",
    "🙂 ok, see you at 7!",
)
