"""params.yaml: every rule is enforced, and every mistake is reported at once."""

from pathlib import Path

import pytest
from dvc.utils.serialize import loads_yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_compare.errors import ParamsError
from lora_compare.params import LoraParams, Params, load_params, parse_params, require_prior

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "recipes" / "quick.yaml").read_text()


def edited(*replacements: tuple[str, str]) -> str:
    text = TEXT
    for old, new in replacements:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def mistakes(text: str) -> str:
    with pytest.raises(ParamsError) as caught:
        parse_params(text)
    return str(caught.value)


RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_recipes_are_valid(path: Path) -> None:
    assert isinstance(load_params(path), Params)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_recipes_spell_out_every_default(path: Path) -> None:
    params = load_params(path)

    def unset(section: object, path: str = "") -> list[str]:
        fields = type(section).model_fields
        missing = [f"{path}{n}" for n in set(fields) - section.model_fields_set]
        if isinstance(section, LoraParams):  # its many rare settings stand in docs/params.md
            missing = []
        for name in section.model_fields_set:
            value = getattr(section, name)
            if hasattr(value, "model_fields_set"):
                missing += unset(value, f"{path}{name}.")
        return missing

    assert unset(params) == []


def test_settings_are_flat_under_dotted_keys_with_or_without_defaults() -> None:
    text = edited(("bias: none", "bias: none\n      rank_pattern: {q_proj: 4}"))
    params = parse_params(text)
    flat, chosen = params.flat(), params.flat(defaults=False)
    assert flat["model.pretraining.vocabulary_size"] == 2048
    assert flat["methods.lora.lora.rank_pattern"] == {"q_proj": 4}
    assert flat["methods.full.lora"] is None
    assert flat["methods.lora.lora.use_dora"] is False
    assert chosen["methods.lora.lora.r"] == 4
    assert "methods.lora.lora.use_dora" not in chosen


def test_every_mistake_is_reported_at_once() -> None:
    message = mistakes(
        edited(("train: 0.7", "train: 7"), ("epochs: 3", "epoch: 5"), ("r: 4", "r: -3"))
    )
    assert "4 mistakes" in message
    assert "split.train: should be less than 1, not 7" in message
    assert "training.epochs: missing" in message
    assert "training.epoch: unknown key" in message
    assert "methods.lora.lora.r: should be greater than or equal to 1, not -3" in message


@pytest.mark.parametrize("written", ["5e-5", "5E-5", "5e-05", "0.5e-4", "5.0e-5", "1e-100", "8e+4"])
def test_a_number_is_what_dvc_reads_it_as(written: str) -> None:
    text = edited(("learning_rate: 2.0e-4", f"learning_rate: {written}"))
    rate = parse_params(text).method("full").learning_rate
    assert rate == float(written) == loads_yaml(text)["methods"]["full"]["learning_rate"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("epochs: 3", "epochs: 5.0", "training.epochs: should be a whole number, not 5.0"),
        ("epochs: 3", "epochs: true", "training.epochs"),
        ("batch_size: 8", "batch_size: 0", "training.batch_size"),
        ("bias: true", "bias: 1", "classifier.bias"),
        ("learning_rate: 2.0e-4", "learning_rate: .nan", "methods.full.learning_rate"),
        ("learning_rate: 2.0e-4", "learning_rate: .inf", "methods.full.learning_rate"),
        ("validation: 0.1", "validation: 0.3", "must leave room for a test split"),
        ("mode: stratified", "mode: appendix_e", "needs deduplicate: none"),
        ("mode: stratified", "mode: appendix_e", "needs twins: apart"),
        ("twins: together", "twins: near", "split.twins: should be 'together' or 'apart'"),
        ("balance: train ", "balance: test ", "split.balance"),
        ("prior: null", "prior: {ham: 0.9, spam: 0.2}", "should sum to 1, and sum to 1.1"),
        ("prior: null", "prior: {ham: 1.0, spam: 0}", "data.prior.spam: should be greater than 0"),
        ("prior: null", "prior: 0.5", "data.prior"),
        ("prior: null", "prior: {}", "data.prior: the shares of the classes should sum to 1"),
        ("prior: null", "prior: {1: 0.5, b: 0.5}", "in quotes it is one"),
        ("position: last_token", "position: last", "classifier.position"),
        ("trainable: all", "trainable: lora", "needs a section lora"),
        ("trainable: lora", "trainable: all", "goes with trainable: lora"),
        ("  full:\n", "  ../full:\n", "becomes a file name"),
        ("  full:\n", "  baseline:\n", "taken by a file of the pipeline"),
        ("  full:\n", "  full_cost:\n", "taken by a file of the pipeline"),
        ("  full:\n", "  LORA:\n", "differ in more than upper and lower case"),
        ("  full:\n", "  lora:\n", "stands twice"),
        ("sha256: null", "sha256: abc", "data.sha256"),
        ("lora_dropout: 0.0", "lora_dropout: 1.0", "methods.lora.lora.lora_dropout"),
        ("target_modules: all-linear", "target_modules: []", "target_modules"),
        ("target_modules: all-linear", "target_modules: '(q_proj'", "is no regular expression"),
        ("bias: none", "bias: none\n      rank_pattern: {'*': 4}", "'*' is no regular expression"),
        (
            "bias: none",
            "bias: none\n      quantization: nf4\n      init_lora_weights: pissa",
            "needs the exact weights",
        ),
        (
            "target_modules: all-linear",
            "target_modules: .*q_proj\n      layers_to_transform: [0]",
            "a regular expression names the blocks itself",
        ),
        ("bias: none", "bias: none\n      layers_to_transform: [-1]", "layers_to_transform"),
        ("bias: none", "bias: none\n      init_lora_weights: loftq", "init_lora_weights"),
    ],
)
def test_a_value_outside_the_rules_is_refused_with_its_key(
    old: str, new: str, expected: str
) -> None:
    assert expected in mistakes(edited((old, new)))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("epochs: 3", 'epochs: "5"', "whole number, not '5', a text; without quotes: 5"),
        ("drop_last: false", "drop_last: 'true'", "not 'true', a text; without quotes: true"),
        ("max_length: null", "max_length: None", "not 'None'; the word for nothing is null"),
        ("sha256: null", "sha256: None", "not 'None'; the word for nothing is null"),
        ("epochs: 3", "epoch: 5", "training.epoch: unknown key; did you mean epochs?"),
        (
            "r: 4",
            "r: 4\n      lora_alfa: 1",
            "lora.lora_alfa: unknown key; did you mean lora_alpha?",
        ),
        ("model:", "learning_rate: 1\nmodel:", "elsewhere: model.pretraining.learning_rate or"),
        ("\ntraining:", "\ntrainings:", "trainings: unknown key; did you mean training?"),
        ("  full:", "  16:", "methods.16: the method name '16' must be a letter"),
        ("  full:", "  true:", "methods.1: a name should be text, not True"),
        ("max_length: null", "max_length: 1025", "at most 1024 for gpt2-nano, not 1025"),
    ],
)
def test_a_mistake_is_told_in_plain_words(old: str, new: str, expected: str) -> None:
    assert expected in mistakes(edited((old, new)))


def test_nothing_is_no_advice_where_it_is_not_allowed() -> None:
    assert "null" not in mistakes(edited(("epochs: 3", "epochs: None"))).partition("kept")[0]


@pytest.mark.parametrize("text", ["", "# nothing but words\n"])
def test_an_empty_file_says_how_to_fill_it(text: str) -> None:
    assert "cp recipes/default.yaml params.yaml" in mistakes(text)


@pytest.mark.parametrize("empty", ["", " {}", " null"])
def test_empty_methods_are_refused_in_words_of_this_project(empty: str) -> None:
    head, tail = TEXT.split("methods:")
    message = mistakes(f"{head}methods:{empty}\n\ntracking:" + tail.split("tracking:")[1])
    assert "methods: name at least one method" in message
    assert "ictionary" not in message


def test_whole_numbers_are_accepted_where_fractions_are() -> None:
    params = parse_params(edited(("weight_decay: 0.1\n    lora", "weight_decay: 0\n    lora")))
    assert params.method("lora").weight_decay == 0.0


def test_parameters_cannot_be_changed_after_reading() -> None:
    params = parse_params(TEXT)
    with pytest.raises(ValueError, match="frozen"):
        params.training.epochs = 9


def test_an_unknown_method_is_named_with_those_there_are() -> None:
    with pytest.raises(ParamsError, match="full, lora"):
        parse_params(TEXT).method("lora_r4")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a: [", b"", b"- 1", b"a: 1\n\x00"])
def test_a_file_that_is_no_mapping_in_yaml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ParamsError):
        load_params(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"params\.yaml"):
        load_params(tmp_path / "params.yaml")


LINES = TEXT.splitlines()


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, len(LINES) - 1),
    st.one_of(
        st.text(max_size=20),
        st.sampled_from(["null", "-1", "1e999", "[]", "{a: 1}", "!!python/none", "&a *a", "yes"]),
    ),
)
def test_any_edited_line_is_accepted_or_refused_cleanly(number: int, value: str) -> None:
    lines = LINES.copy()
    lines[number] = lines[number].split(":")[0] + ": " + value
    try:
        outcome = str(parse_params("\n".join(lines)))
    except ParamsError as error:
        outcome = str(error)
    assert outcome


def test_a_prior_names_the_classes_of_the_data() -> None:
    require_prior(parse_params(TEXT), ["ham", "spam"])
    params = parse_params(edited(("prior: null", "prior: {spam: 0.1, ham: 0.9}")))
    require_prior(params, ["ham", "spam"])
    with pytest.raises(ParamsError) as error:
        require_prior(params, ["Ham", "spam"])
    assert error.value.where == "params.yaml: data.prior"
    assert error.value.expected == "a share of each of 'Ham', 'spam'"
    assert error.value.actual == "no share of 'Ham'; no class of the data: 'ham'"
    with pytest.raises(ParamsError, match=r"'c0', 'c1', 'c2', 'c3', 'c4' and 2 more"):
        require_prior(params, [f"c{i}" for i in range(7)])
