"""Trains embgemma-tiny to give the teacher's vectors, on their main axes, and writes it as a checkpoint.

It saves its state after each part of the corpus; a run goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import sentencepiece
import torch
from torch import Tensor
from torch.nn import functional

from ...notices import tell
from .corpus import CORPUS
from .student import HIDDEN, VOCAB, Student
from .student_checkpoint import BOS, EOS, PROMPTS, write_checkpoint
from .teacher import PART, teacher_folder

BATCH, HELD_OUT = 192, 768  # texts of a step; texts, the first ones, that are never trained on
MATRIX_RATE, ROW_RATE, NORM_RATE = 2e-3, 1e-3, 2e-3
Groups = npt.NDArray[np.int64]  # (groups, texts of a group): numbers of texts
Bools = npt.NDArray[np.bool_]

STATE = "state.pt"
DIMENSIONS = (256, 128, 64)  # prefixes of a vector that are trained to be vectors (Matryoshka, arXiv 2205.13147)


@dataclass(frozen=True)
class Phase:
    """A run of steps, at whose end the rates are 0.

    Attributes:
        steps: how many.
        rate: the highest, as a share of the rates above.
        rise: steps in which it is reached.
        fall: share of the steps in which it falls.
        kin: texts near each other that go into a batch together, so that their cosines are learned as well.
        longest: tokens of a text.
    """

    steps: int
    rate: float
    rise: int
    fall: float
    kin: int
    longest: int

    def share(self, step: int) -> float:
        """Of the rates, at a step of the phase."""
        return min(self.rate, (step + 1) / self.rise, self.rate * (self.steps - step) / (self.fall * self.steps))


PHASES = (Phase(1640, 1.0, 150, 0.43, 1, 128), Phase(600, 0.6, 1, 1.0, 8, 64))


def tokenizer(folder: Path) -> sentencepiece.SentencePieceProcessor:
    """Trained on the corpus if there is none yet, with the settings of Gemma's."""
    path = folder / "tokenizer.model"
    if not path.exists():
        sentencepiece.SentencePieceTrainer.train(
            input=str(folder / CORPUS), model_prefix=str(folder / "tokenizer"), model_type="bpe",
            vocab_size=VOCAB, byte_fallback=True, character_coverage=0.9999, add_dummy_prefix=False,
            remove_extra_whitespaces=False, normalization_rule_name="identity", split_digits=True,
            allow_whitespace_only_pieces=True, input_sentence_size=400_000, shuffle_input_sentence=True,
            pad_id=0, eos_id=EOS, bos_id=BOS, unk_id=3, bos_piece="<bos>", eos_piece="<eos>",
            user_defined_symbols=["\n", "\n\n", "\t", "▁▁", "▁▁▁"], num_threads=2, minloglevel=1,
        )  # fmt: skip
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


class Data:
    """The corpus in parts: token ids of the texts, and their goals: the teacher's vectors on their main axes.

    The axes are those of the largest second moments, the largest first, so that a prefix keeps most.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.pieces = folder, tokenizer(folder)
        with (folder / CORPUS).open(encoding="utf-8") as corpus:
            self.texts = [line.rstrip("\n") for line in corpus]
        if not (folder / "axes.npy").exists():
            vectors = self.vectors(0)
            np.save(folder / "axes.npy", np.linalg.eigh(vectors.T @ vectors)[1][:, ::-1][:, :HIDDEN])
        self.axes = np.load(folder / "axes.npy")

    def parts(self) -> int:
        """How many parts the teacher has embedded by now."""
        return len(list((self.folder / "vectors").glob("???.npy")))

    def vectors(self, part: int) -> npt.NDArray[np.float32]:
        """The teacher's, float32 (PART, 384)."""
        vectors: npt.NDArray[np.float32] = np.load(self.folder / "vectors" / f"{part:03d}.npy")
        return vectors.astype(np.float32)

    def part(self, number: int) -> tuple[list[list[int]], Tensor]:
        """Token ids and goals (texts, HIDDEN)."""
        texts = self.texts[number * PART : (number + 1) * PART]
        ids = self.pieces.encode(texts, num_threads=2)
        return ids, torch.from_numpy(self.vectors(number) @ self.axes)


def first_rows(folder: Path, model: Student) -> None:
    """Begins with embedding rows that are the teacher's vectors of the pieces by themselves."""
    from sentence_transformers import SentenceTransformer

    path = folder / "pieces.npy"
    if not path.exists():
        pieces = tokenizer(folder)
        names = [pieces.id_to_piece(i).replace("▁", " ") for i in range(VOCAB)]
        teacher = SentenceTransformer(str(teacher_folder(folder)), device="cpu")
        np.save(path, teacher.encode(names, batch_size=256, normalize_embeddings=True))
    rows = torch.from_numpy(np.load(path) @ np.load(folder / "axes.npy"))
    with torch.no_grad():
        model.embed_tokens.weight.copy_((rows - rows.mean(0)) * 0.5)


def loss_of(vectors: Tensor, goals: Tensor, kin: int) -> Tensor:
    """How far the vectors and the cosines between them are from those of the goals."""
    total = torch.zeros(())
    wanted = functional.normalize(goals, dim=-1)
    groups = torch.arange(len(goals)) // kin
    within = groups[:, None] == groups
    for dim in DIMENSIONS:
        got = functional.normalize(vectors[:, :dim], dim=-1)
        goal = functional.normalize(goals[:, :dim], dim=-1)
        errors = (got @ got.T - wanted @ wanted.T) ** 2
        total = total + (1 - (got * goal).sum(-1)).mean() + 10 * errors.mean() + 5 * errors[within].mean()
    return total / len(DIMENSIONS)


def padded(rows: list[list[int]], prompt: list[int]) -> Tensor:
    """One text a row, with prompt, <bos> and <eos>, padded with 0."""
    rows = [[BOS, *prompt, *row, EOS] for row in rows]
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for target, row in zip(ids, rows, strict=True):
        target[: len(row)] = torch.tensor(row)
    return ids


def kin_groups(goals: Tensor, free: Bools, kin: int, random: np.random.Generator) -> Groups:
    """Groups of `kin` texts near each other, of those that are free; what is left over is grouped by chance."""
    unit = functional.normalize(goals, dim=-1)
    blocks = range(0, len(unit), 2000)
    near = torch.cat([(unit[i : i + 2000] @ unit.T).topk(min(4 * kin, len(unit))).indices for i in blocks]).numpy()
    groups = []
    for text in random.permutation(len(near)):
        group = [other for other in near[text] if free[other]][:kin] if free[text] else []
        if len(group) == kin:
            free[group] = False
            groups.append(group)
    rest = random.permutation(np.flatnonzero(free))
    return np.array([*groups, *rest[: len(rest) // kin * kin].reshape(-1, kin)])


def batches(ids: list[list[int]], goals: Tensor, first: int, kin: int, random: np.random.Generator) -> Groups:
    """The numbers of the texts of each batch, from `first` on; groups of like length go together."""
    free = np.arange(len(ids)) >= first
    groups = kin_groups(goals, free, kin, random)
    lengths = np.array([len(row) for row in ids])[groups].max(axis=1) + random.uniform(-4, 4, len(groups))
    groups = groups[np.argsort(lengths)].reshape(-1)
    return random.permutation(groups[: len(groups) // BATCH * BATCH].reshape(-1, BATCH))


class Trainer:
    """A model, what trains it, and how far it is: Muon for the matrices, AdamW for rows of the table and norms."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.folder, self.data, self.model = folder, Data(folder), Student()
        self.step, self.rounds = 0, 0
        first_rows(folder, self.model)
        rows = self.model.embed_tokens.weight
        matrices = [p for p in self.model.parameters() if p.ndim > 1 and p is not rows]
        norms = [p for p in self.model.parameters() if p.ndim == 1]
        others = [{"params": [rows], "lr": ROW_RATE}, {"params": norms, "lr": NORM_RATE}]
        self.methods: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.rates = [group["lr"] for method in self.methods for group in method.param_groups]
        if (folder / STATE).exists():
            saved = torch.load(folder / STATE)
            self.model.load_state_dict(saved["model"])
            for method, values in zip(self.methods, saved["methods"], strict=True):
                method.load_state_dict(values)
            self.step, self.rounds = saved["step"], saved["rounds"]

    def save(self) -> None:
        """Keeps the state for the next run."""
        methods = [method.state_dict() for method in self.methods]
        state = {"model": self.model.state_dict(), "methods": methods, "step": self.step, "rounds": self.rounds}
        torch.save(state, self.folder / f"{STATE}.new")
        (self.folder / f"{STATE}.new").rename(self.folder / STATE)

    def learn(self, ids: Tensor, goals: Tensor, share: float, kin: int) -> float:
        """One step at a share of the rates; returns the loss."""
        groups = (group for method in self.methods for group in method.param_groups)
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate * share
        loss = loss_of(self.model(ids), goals, kin)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for method in self.methods:
            method.step()
            method.zero_grad()
        self.step += 1
        return float(loss.detach())

    def held_out_cosine(self) -> float:
        """Mean cosine to the goals of the texts that are never trained on."""
        ids, goals = self.data.part(0)
        rows = [ids[i : i + BATCH] for i in range(0, HELD_OUT, BATCH)]
        with torch.no_grad():
            got = torch.cat([self.model(padded(row, [])) for row in rows])
        return float(functional.cosine_similarity(got, goals[: len(got)]).mean())

    def train(self) -> None:
        """Trains to the end, a part of the corpus after the other, and writes the checkpoint."""
        prompts = [[], *(self.data.pieces.encode(PROMPTS[name]) for name in ("query", "document"))]
        begin = 0
        for phase in PHASES:
            while self.step < begin + phase.steps:
                part = self.rounds % self.data.parts()
                ids, goals = self.data.part(part)
                random = np.random.default_rng(self.rounds)
                losses = []
                for group in batches(ids, goals, HELD_OUT if part == 0 else 0, phase.kin, random):
                    if self.step < begin + phase.steps:
                        rows = [ids[i][: phase.longest - 2] for i in group]
                        rows = padded(rows, prompts[random.integers(len(prompts))])
                        losses.append(self.learn(rows, goals[group], phase.share(self.step - begin), phase.kin))
                self.rounds += 1
                tell(f"step {self.step}: loss {np.mean(losses):.4f}, held out cosine {self.held_out_cosine():.4f}")
                self.save()
            begin += phase.steps
        write_checkpoint(self.folder / "checkpoint", self.folder, self.model)
