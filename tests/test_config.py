import importlib
from dataclasses import dataclass, field
from pathlib import Path

import draccus
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_reward import config as configs
from embodied_reward.cli.command import help_text
from embodied_reward.errors import ConfigError


@dataclass(frozen=True)
class Animal(draccus.ChoiceRegistry):
    legs: int = 4


@Animal.register_subclass("dog")
@dataclass(frozen=True)
class Dog(Animal):
    bark: float = 1.0
    """how loud"""


@Animal.register_subclass("bird")
@dataclass(frozen=True)
class Bird(Animal):
    wings: int = 2


@dataclass(frozen=True)
class Inner:
    lr: float = 1e-3
    views: tuple[str, ...] = ("front",)
    ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Root:
    inner: Inner = field(default_factory=Inner)
    """a group"""
    pet: Animal = field(default_factory=Dog)
    name: str = "x"
    path: str | None = None
    count: int | None = 7
    steps: int = 10
    """how many"""
    flag: bool = False
    size: tuple[int, int] = (4, 4)
    options: dict[str, int] = field(default_factory=dict)
    resume: bool = False
    output_dir: str | None = None


def parse(*argv):
    return configs.parse(Root, argv, verb="collect")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def presets(tmp_path, monkeypatch):
    """A folder of presets that this test owns."""
    monkeypatch.setattr(configs.importlib.resources, "files", lambda _: tmp_path)
    return tmp_path / "collect"


def test_defaults_need_nothing():
    assert parse() == Root()


@pytest.mark.parametrize(
    ("argv", "path", "value"),
    [
        (["--steps=3"], "steps", 3),
        (["--steps", "3"], "steps", 3),
        (["--steps=3", "--steps=4"], "steps", 4),
        (["--inner.lr=1e-4"], "inner.lr", 1e-4),
        (["--inner.lr=1"], "inner.lr", 1.0),
        (["--flag=true"], "flag", True),
        (["--count=null"], "count", None),
        (["--count="], "count", None),
        (["--count=3"], "count", 3),
        (["--path=/a/b=c"], "path", "/a/b=c"),
        (["--path=~"], "path", None),
        (["--size=3,5"], "size", (3, 5)),
        (["--size=[3,5]"], "size", (3, 5)),
        (["--inner.views=a,b"], "inner.views", ("a", "b")),
        (["--inner.views=a"], "inner.views", ("a",)),
        (["--inner.views="], "inner.views", ()),
        (["--inner.views=[a, b]"], "inner.views", ("a", "b")),
        (["--inner.ids=3"], "inner.ids", (3,)),
        (["--options.a=3"], "options", {"a": 3}),
        (["--options={a: 1}"], "options", {"a": 1}),
    ],
)
def test_values_take_the_type_of_their_field(argv, path, value):
    found = parse(*argv)
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


@given(st.text(min_size=1, max_size=30))
def test_text_arrives_as_it_was_typed(text):
    """YAML would turn "no" into False, "010" into 8 and drop what follows " #"."""
    assert parse(f"--name={text}").name == text


@pytest.mark.parametrize("text", ["no", "010", "a #b", "1e5", "2024-01-01", "{a: 1}", "", "null"])
def test_text_that_yaml_would_change(text):
    assert parse(f"--name={text}").name == text


@given(
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.integers(), max_size=4),
    st.booleans(),
)
def test_whatever_is_encoded_decodes_to_the_same(steps, lr, ids, flag):
    config = Root(steps=steps, inner=Inner(lr=lr, ids=tuple(ids)), flag=flag, pet=Bird(wings=3))
    assert configs.decode(Root, configs.encode(config)) == config


def test_the_written_file_reads_back_equal(tmp_path):
    config = Root(name="no", path="1", pet=Bird(2, 5), inner=Inner(views=("a", "b")))
    configs.write_yaml(config, tmp_path / "config.yaml")
    assert configs.decode(Root, configs.read_yaml(tmp_path / "config.yaml")) == config


class TestPrecedence:
    def test_preset_then_file_then_command_line(self, tmp_path, presets):
        write(presets / "quick.yaml", "steps: 1\nname: preset\ninner: {lr: 0.1, ids: [1]}\n")
        file = write(tmp_path / "mine.yaml", "name: file\ninner: {lr: 0.2}\n")
        found = parse("--inner.lr=0.3", "--preset=quick", f"--config_path={file}")
        assert (found.steps, found.name, found.inner) == (1, "file", Inner(lr=0.3, ids=(1,)))

    def test_another_choice_type_drops_the_fields_of_the_old_one(self, presets):
        write(presets / "dog.yaml", "pet: {type: dog, bark: 3.0, legs: 3}\n")
        assert parse("--preset=dog", "--pet.type=bird").pet == Bird()
        assert parse("--preset=dog", "--pet.legs=2").pet == Dog(legs=2, bark=3.0)

    def test_an_empty_preset_changes_nothing(self, presets):
        write(presets / "none.yaml", "# nothing yet\n")
        assert parse("--preset=none") == Root()

    def test_resume_takes_the_runs_own_config_and_the_command_line_wins(self, tmp_path):
        configs.write_yaml(Root(steps=99, name="old"), tmp_path / "config.yaml")
        found = parse("--resume=true", f"--output_dir={tmp_path}", "--name=new")
        assert (found.steps, found.name, found.resume) == (99, "new", True)

    def test_without_resume_an_old_config_is_not_looked_at(self, tmp_path):
        configs.write_yaml(Root(steps=99), tmp_path / "config.yaml")
        assert parse(f"--output_dir={tmp_path}").steps == 10


class TestChoices:
    def test_type_selects_the_class_and_its_fields(self):
        assert parse("--pet.type=bird", "--pet.wings=3").pet == Bird(wings=3)

    def test_the_default_type_keeps_its_fields_settable(self):
        assert parse("--pet.bark=2").pet == Dog(bark=2.0)

    def test_an_unknown_type_names_the_nearest(self):
        with pytest.raises(ConfigError, match=r"unknown '--pet.type=brid'; did you mean 'bird'\?"):
            parse("--pet.type=brid")

    def test_a_field_of_another_type_is_unknown(self):
        with pytest.raises(ConfigError, match="unknown configuration key '--pet.bark'"):
            parse("--pet.type=bird", "--pet.bark=1")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--stepz=3"], "unknown configuration key '--stepz'; did you mean 'steps'"),
        (["--lr=3"], "did you mean 'inner.lr'"),
        (["--inner.lr.x=3"], "unknown configuration key '--inner.lr.x'"),
        (["--inner=3"], "unknown configuration key '--inner'"),
        (["--steps=abc"], "`steps`: Couldn't parse 'abc' into an int"),
        (["--steps=1.5"], "Couldn't parse '1.5' into an int"),
        (["--steps="], "'--steps' needs a value of type int, got nothing"),
        (["--count=x"], "Couldn't parse 'x' into an int"),
        (["--size=3"], "`size`: Expected 2 items, got 1"),
        (["--inner.ids=1,x"], "Couldn't parse 'x' into an int"),
        (["--flag"], "'--flag' has no value; write '--flag=VALUE'"),
        (["--flag", "--steps=3"], "'--flag' has no value"),
        (["--flag=2"], "Couldn't parse '2' into a bool"),
        (["steps=3"], "expected '--key=value', got 'steps=3'"),
        (["-steps=3"], "expected '--key=value', got '-steps=3'"),
        (["--=3"], "expected '--key=value', got '--=3'"),
        (["--steps.=3"], "expected '--key=value', got '--steps.=3'"),
        (["--inner.lr=1", "--inner.lr.x=2"], "'--inner.lr.x' sets a field of 'lr'"),
        (["--config_path=/nowhere.yaml"], "no configuration file at '/nowhere.yaml'"),
        (["--resume=true", "--output_dir=/nowhere"], "no configuration file at '/nowhere/config"),
    ],
)
def test_bad_input_is_one_line_that_says_what_would_be_accepted(argv, message):
    with pytest.raises(ConfigError) as caught:
        parse(*argv)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_preset_names_the_nearest(presets):
    write(presets / "quick.yaml", "steps: 1\n")
    with pytest.raises(ConfigError, match="no preset 'qick' for 'collect'; did you mean 'quick'"):
        parse("--preset=qick")


@pytest.mark.parametrize(
    ("text", "message"),
    [("steps: [", "is not valid YAML"), ("- 1\n- 2\n", "must hold a mapping of keys, got list")],
)
def test_a_broken_file_is_named(tmp_path, text, message):
    file = write(tmp_path / "broken.yaml", text)
    with pytest.raises(ConfigError) as caught:
        parse(f"--config_path={file}")
    assert "broken.yaml" in str(caught.value)
    assert message in str(caught.value)


def test_an_unknown_key_in_a_file_is_refused_too(tmp_path):
    file = write(tmp_path / "c.yaml", "inner: {rl: 0.1}\n")
    with pytest.raises(ConfigError, match="unknown configuration key '--inner.rl'"):
        parse(f"--config_path={file}")


def test_yaml_cannot_build_objects(tmp_path):
    file = write(tmp_path / "evil.yaml", "name: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse(f"--config_path={file}")


def test_help_shows_every_key_with_default_and_comment():
    text = help_text("collect", Root, "About.")
    for key in configs.known_keys(Root):
        if key != "pet.type":
            assert f"--{key}=" in text
    assert "--pet.type" in text
    assert "one of dog, bird" in text
    assert "--steps=10" in text
    assert "how many" in text
    assert "--pet.bark=1.0" in text


CONFIGS = Path(__file__).resolve().parents[1] / "configs"
# Those of `robot` are no presets of a verb but what `er rollout --limits=` takes.
PRESETS = sorted(f for f in CONFIGS.glob("*/*.yaml") if f.parent.name != "robot")


@pytest.mark.parametrize("file", PRESETS, ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_every_preset_is_accepted_by_its_verb(file, monkeypatch):
    """A preset with a key that no longer exists would fail only when somebody uses it."""

    class ParsedError(Exception):
        pass

    def parse_only(*args, **kwargs):
        real(*args, **kwargs)
        raise ParsedError

    real = configs.parse
    monkeypatch.setattr(configs, "parse", parse_only)
    module = importlib.import_module(f"embodied_reward.cli.{file.parent.name}")
    with pytest.raises(ParsedError):
        module.main([f"--preset={file.stem}"])
