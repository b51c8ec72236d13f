"""Training on tiny shapes: what is taught is what the target says, what is held out stays out, what is saved loads."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

from tiny_engines import request  # noqa: E402
from tokbench.cli.training import TrainRequest, train  # noqa: E402
from tokbench.derive.speculation.found import TOY  # noqa: E402
from tokbench.errors import SpecError  # noqa: E402
from tokbench.measure.engines.transformers.loading import load_model  # noqa: E402
from tokbench.measure.models import TRAINED_FILE, parse_source, resolve_model  # noqa: E402
from tokbench.measure.training import harvest, mtp, texts, toys  # noqa: E402
from tokbench.measure.training.schedule import share_of_rate  # noqa: E402

NAMED = mtp.Named("t", "s")
ASKED = harvest.Asked(32, 8, 12, seed=1, rows_at_once=16)


torch.set_num_threads(1)  # two would wait for each other where the machine has other work


def silent(_: str) -> None:
    """Hears nothing."""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Sixty files of a library, one of tests, and one that is too short."""
    folder = tmp_path / "library"
    (folder / "test").mkdir(parents=True)
    for number in range(60):
        body = "\n".join(f"    total_{line} = {number} * {line} + len(name)" for line in range(24))
        said = f"Add {number} to what is there, and say so. " * 4
        (folder / f"part{number}.py").write_text(
            f'def add_{number}(name):\n    """{said}"""\n{body}\n', encoding="utf-8"
        )
    (folder / "test" / "test_part.py").write_text("x = 1\n" * 400, encoding="utf-8")
    (folder / "short.py").write_text("x = 1\n", encoding="utf-8")
    return folder


def test_texts_are_the_library_alone_and_one_in_ten_is_held_out(library: Path) -> None:
    found = texts.library_texts(library)
    assert {f"part{number}.py" for number in range(60)} == {text.name for text in found}
    assert 1 <= sum(text.is_held_out for text in found) <= 15
    assert found == texts.library_texts(library)


def test_questions_are_about_what_a_file_documents(library: Path) -> None:
    text = next(text for text in texts.library_texts(library) if text.name == "part7.py")
    assert [("part7.add_7", "Add 7")] == [(name, said[:5]) for name, said in texts.docstrings(text)]
    asked = [next(texts.questions(text, random.Random(seed))) for seed in range(20)]
    assert all("part7.add_7" in question or "Add 7 to what" in question for question in asked)
    assert len(set(asked)) > 3


class Letters:
    """A tokenizer of one token a character."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) % 512 for letter in text]


def test_prompts_have_one_length_and_those_held_out_come_last(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = texts.library_texts(library)
    monkeypatch.setattr(harvest, "library_texts", lambda: everything)
    ids, held_out = harvest.prompts(Letters(), ASKED, "user {question} assistant\n")
    assert (32, 8) == tuple(ids.shape)
    assert 8 == held_out
    kept = ["".join(map(chr, row)) for row in ids.tolist()]
    assert sum(row.endswith("tant\n") for row in kept[:-8]) == round(24 * harvest.CHAT_SHARE)
    plain, _ = harvest.prompts(Letters(), ASKED, None)
    assert not any("".join(map(chr, row)).endswith("tant\n") for row in plain.tolist())


def test_the_form_of_a_chat_is_that_of_the_weights(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    tokenizer.save_pretrained(str(tmp_path / "plain"))
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}: {{ m.content }}]{% endfor %} {'answer':"
    tokenizer.save_pretrained(str(tmp_path / "chat"))
    assert harvest.chat_form(tmp_path / "plain") is None
    assert "[user: {question}] {'answer':" == harvest.chat_form(tmp_path / "chat")


def test_too_few_texts_are_one_clear_error(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harvest, "library_texts", lambda: texts.library_texts(library)[:1])
    with pytest.raises(SpecError, match="standard library's sources give"):
        harvest.prompts(Letters(), ASKED, None)


@pytest.fixture(scope="module")
def target() -> Any:
    return load_model(request())


@pytest.fixture(scope="module")
def harvested(target: Any) -> harvest.Harvest:
    prompts = torch.randint(512, (32, 8), generator=torch.Generator().manual_seed(1))
    return harvest.harvest(target, prompts, 8, ASKED, None, silent)


@torch.inference_mode()
def test_what_is_harvested_is_what_the_target_says(target: Any, harvested: harvest.Harvest) -> None:
    assert (32, 20) == tuple(harvested.tokens.shape)
    states = target.model(harvested.tokens).last_hidden_state
    assert torch.allclose(states, harvested.hidden.float(), atol=0.02 * float(states.abs().max()))
    assert torch.equal(target.lm_head(states).argmax(-1), harvested.likeliest)


def test_half_of_the_rows_are_greedy_and_half_are_drawn(harvested: harvest.Harvest) -> None:
    is_greedy = (harvested.tokens[:, 8:] == harvested.likeliest[:, 7:-1]).all(1).tolist()
    assert [False] * 8 + [True] * 8 == is_greedy[:16]


def test_training_lowers_the_loss_and_agrees_more_than_an_untrained_head(
    pair: tuple[Path, Path, toys.PairFacts],
) -> None:
    from transformers import AutoModelForCausalLM

    target = AutoModelForCausalLM.from_pretrained(str(pair[0])).eval()
    prompts = torch.randint(300, (32, 8), generator=torch.Generator().manual_seed(1))
    text = harvest.harvest(target, prompts, 8, ASKED, None, silent)
    none = mtp.Recipe(steps=1, depths=2, scored_places=64, learning_rate=0.0)
    untrained = mtp.train_head(target, text, none, mtp.Named("toy", "path:toy"), None, silent).facts
    trained = mtp.train_head(
        target, text, none._replace(steps=40, learning_rate=3e-3), mtp.Named("toy", "path:toy"), None, silent
    )
    assert trained.facts.loss < untrained.loss - 0.5
    assert trained.facts.held_out_agreement[0] > untrained.held_out_agreement[0] + 0.1
    assert 2 == len(trained.facts.held_out_agreement)
    assert (40, 24 * 19, "trained here") == (trained.facts.steps, trained.facts.distinct_positions, trained.facts.label)
    assert all(not parameter.requires_grad for parameter in target.parameters())


@torch.inference_mode()
def test_every_depth_is_examined_at_the_same_places(target: Any, harvested: harvest.Harvest) -> None:
    trainer = mtp._Trainer(target, harvested, mtp.Recipe(depths=3, rows_per_step=3))
    asked = list[int]()
    head = trainer.parts.head

    def counted(state: Any) -> Any:
        asked.append(state.shape[0] * state.shape[1])
        return head(state)

    counted.weight = head.weight  # type: ignore[attr-defined]
    trainer.parts = trainer.parts._replace(head=counted)
    shares, count = trainer.agreement()
    assert (3, harvested.held_out * (20 - 8)) == (len(shares), count)  # of 20 tokens 8 are the prompt
    assert [count] * 3 == [sum(asked[depth::3]) for depth in range(3)]


def test_the_same_seed_trains_the_same_head(target: Any, harvested: harvest.Harvest) -> None:
    recipe = mtp.Recipe(steps=3, depths=1, scored_places=64)
    first, second = (mtp.train_head(target, harvested, recipe, NAMED, None, silent).head for _ in range(2))
    other = mtp.train_head(target, harvested, recipe._replace(seed=2), NAMED, None, silent).head
    assert torch.equal(first.merge.weight, second.merge.weight)
    assert not torch.equal(first.merge.weight, other.merge.weight)


def test_the_rate_rises_and_falls() -> None:
    shares = [share_of_rate(step, 100) for step in range(100)]
    assert 1.0 == max(shares) == shares[4]
    assert shares[:5] == sorted(shares[:5])
    assert shares[5:] == sorted(shares[5:], reverse=True)
    assert pytest.approx(0.05, abs=0.002) == shares[-1]


WORDS = [
    texts.Text(f"{n}.py", f"def add_{n}(name):\n    return name + {n}\n" * 40, is_held_out=n % 5 == 0)
    for n in range(20)
]
TINY = toys.PairRecipe(300, toys.Size(2, 64), toys.Size(1, 32), steps=60, rows_per_step=4, tokens_per_row=32)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, toys.PairFacts]:
    folder: Path = tmp_path_factory.mktemp("toys")
    made = toys.train_pair(TINY, texts.corpus(WORDS), "cpu", folder, silent)
    return (*toys.save_pair(folder, made), made.facts)


def test_a_pair_knows_more_than_how_frequent_tokens_are(pair: tuple[Path, Path, toys.PairFacts]) -> None:
    facts, seen = pair[2], pair[2].held_out
    assert seen.target_loss < seen.unigram_loss
    assert seen.bigram_loss < seen.unigram_loss < 5.8  # knowing nothing costs ln 300 = 5.7
    assert seen.agreement > 0.1
    assert 0.1 < seen.overlap < 1
    assert 60 * 4 * 32 == facts.tokens
    assert facts.target_parameters > 3 * facts.draft_parameters


def test_a_pair_is_examined_in_the_type_that_it_is_saved_in(pair: tuple[Path, Path, toys.PairFacts]) -> None:
    from transformers import AutoModelForCausalLM

    models = [AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.bfloat16).eval() for folder in pair[:2]]
    coder = toys.train_coder(WORDS, 300)
    training = toys._Training(TINY._replace(vocabulary=coder.get_vocab_size()), coder, "cpu")
    training.target, training.draft = models
    found = training.examine(*(toys.encode(coder, WORDS, side) for side in (False, True)))
    assert pytest.approx(tuple(found), rel=1e-3) == tuple(pair[2].held_out)  # last bits of bfloat16 differ


def test_a_pair_is_saved_as_models_in_bfloat16_that_say_what_they_are(pair: tuple[Path, Path, toys.PairFacts]) -> None:
    from safetensors.torch import load_file

    vocabularies = set()
    for folder, role in zip(pair[:2], ("target", "draft"), strict=True):
        resolved = resolve_model(
            parse_source(f"path:{folder}"), "pretrained", "bfloat16", cache=folder, environ={}, report=silent
        )
        assert resolved.has_tokenizer
        assert resolved.note is not None
        assert resolved.note.startswith(f"{TOY}: {role} of a pair, 60 steps")
        vocabularies.add((folder / "tokenizer.json").read_text(encoding="utf-8"))
        assert {torch.bfloat16} == {tensor.dtype for tensor in load_file(str(folder / "model.safetensors")).values()}
        kept = json.loads((folder / TRAINED_FILE).read_text(encoding="utf-8"))
        assert kept["held_out"] == pair[2].held_out._asdict()
        assert texts.corpus(WORDS).sha256 == kept["text_sha256"]
    assert 1 == len(vocabularies)
    assert not list(pair[0].parent.glob("*.pt"))  # nothing of the training is left but its result


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"what": "mpt"}, "'mpt' is nothing that can be trained here"),
        ({"what": "mtp"}, "a head is trained for one model"),
        ({"model": "shape:tiny-llama", "dtype": "float33"}, "float32"),
        ({"what": "pair"}, "a pair needs a folder"),
        ({"what": "pair", "out": Path("x"), "model": "shape:tiny-llama"}, "a pair is trained from nothing"),
        ({"what": "pair", "out": Path("x"), "size": "huge"}, "there is no size 'huge'"),
    ],
)
def test_what_cannot_be_trained_is_refused(changed: dict[str, Any], said: str) -> None:
    from rich.console import Console

    asked = TrainRequest(
        what="mtp", model=None, dtype="bfloat16", out=None, size="small", steps=None, rows=16, depths=1, seed=1
    )
    with pytest.raises(SpecError, match=said):
        train(asked._replace(**changed), Console())
