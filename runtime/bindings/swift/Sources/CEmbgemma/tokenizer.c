#include "tokenizer/tokenizer.c"
#include "tokenizer/tokenizer_table.c"
#include "tokenizer/tokenizer_word.c"
