"""Malformed recipes and overrides, each with the sentence that answers it.

``…`` stands for words of PyYAML. ``{recipe}`` is the recipe's path, ``{folder}`` its folder.
"""

from typing import NamedTuple


class Malformed(NamedTuple):
    what: str
    said: str
    recipe: bytes = b"extends: quickstart\n"
    overrides: tuple[str, ...] = ()


def of_override(what: str, override: str, said: str) -> Malformed:
    return Malformed(what, said, overrides=(override,))


YAML = "see its indentation, quotes and brackets"
SECTION = "a section with keys of its own is expected, got"

CONFIGS = [
    Malformed(
        "a recipe that is not UTF-8",
        "recipe {recipe}, line 2: not UTF-8 (byte 0xe9); save it as UTF-8",
        b"extends: quickstart\nname: caf\xe9\n",
    ),
    Malformed(
        "a recipe in UTF-16",
        "recipe {recipe}, line 1: not UTF-8 (byte 0xff); save it as UTF-8",
        "name: x\n".encode("utf-16"),
    ),
    Malformed(
        "a zero byte",
        "recipe {recipe}, line 2: not valid YAML: the character '\\x00' is not allowed; delete it",
        b"name: x\nseed: \x001\n",
    ),
    Malformed(
        "a quote that never closes",
        f"recipe {{recipe}}, line 3: not valid YAML: … end of stream; {YAML}",
        b'name: "x\nseed: 1\n',
    ),
    Malformed(
        "a tab",
        f"recipe {{recipe}}, line 2: not valid YAML: …'\\t'…; {YAML}",
        b"student:\n\tmake: {}\n",
    ),
    Malformed(
        "a bracket that never closes",
        f"recipe {{recipe}}, line 3: not valid YAML: …; {YAML}",
        b"name: x\nlearner: [1\n",
    ),
    Malformed(
        "a key twice",
        "recipe {recipe}, line 2: not valid YAML: key 'seed' occurs twice; leave one out",
        b"seed: 1\nseed: 2\n",
    ),
    Malformed(
        "two documents",
        "recipe {recipe}, line 2: not valid YAML: … but found another document",
        b"name: a\n---\nname: b\n",
    ),
    Malformed(
        "an alias of nothing",
        "recipe {recipe}, line 1: not valid YAML: found undefined alias 'this'",
        b"name: *this\n",
    ),
    Malformed(
        "a tag that would run code",
        "recipe {recipe}, line 1: not valid YAML: could not determine a constructor for the tag …",
        b"name: !!python/object/apply:os.getcwd []\n",
    ),
    Malformed(
        "brackets without end",
        "recipe {recipe}: not valid YAML: it is nested too deeply",
        b"seed: " + b"[" * 1000,
    ),
    Malformed(
        "a list at the top",
        "recipe {recipe}: a mapping of sections is expected at the top (section: {key: value}), "
        "got ['name', 'seed']",
        b"- name\n- seed\n",
    ),
    Malformed(
        "a number for a key",
        "recipe {recipe}: a mapping of sections is expected at the top (section: {key: value}), "
        "got {1: 2}",
        b"1: 2\n",
    ),
    Malformed(
        "a list for a section",
        f"learner: {SECTION} [1, 2] (in recipe {{recipe}})",
        b"extends: quickstart\nlearner: [1, 2]\n",
    ),
    Malformed(
        "a section for a value",
        "seed: a whole number is expected, got {'a': 1} (in recipe {recipe})",
        b"extends: quickstart\nseed: {a: 1}\n",
    ),
    Malformed(
        "an unknown key in a section",
        "unknown key 'evaluation.sampels' in recipe {recipe}: the nearest known key is "
        "'evaluation.samples'",
        b"extends: quickstart\nevaluation: {sampels: 4}\n",
    ),
    Malformed(
        "two recipes that extend each other",
        "recipe {recipe} extends itself, by way of {recipe}; take one extends out",
        b"extends: r.yaml\n",
    ),
    Malformed(
        "a list of recipes to extend",
        "recipe {recipe}: extends takes a recipe's name or path, got ['a', 'b']",
        b"extends: [a, b]\n",
    ),
    Malformed(
        "a recipe to extend that is not there",
        "recipe {recipe} extends '{folder}/base.yaml': recipe file {folder}/base.yaml does not "
        "exist (looked for {folder}/base.yaml)",
        b"extends: {folder}/base.yaml\n",
    ),
    of_override(
        "an override without an equals sign",
        "seed",
        "override 'seed' is not key=value: write for example learner.steps=200",
    ),
    of_override(
        "an override that is half a list",
        "seed=[1",
        f"override seed=[1: the value is not valid YAML: …; {YAML}",
    ),
    of_override(
        "a key below a value",
        "seed.first=1",
        "unknown key 'seed.first': seed takes a value, it has no keys",
    ),
    of_override(
        "an unknown key",
        "learner.learnin_rate=1",
        "unknown key 'learner.learnin_rate' in override 'learner.learnin_rate=1': the nearest "
        "known key is 'learner.learning_rate'",
    ),
    of_override(
        "a word for a number",
        "student.make.layers=two",
        "student.make.layers: a whole number is expected, got 'two' (in override "
        "'student.make.layers=two')",
    ),
    of_override(
        "a decimal comma",
        "learner.learning_rate=0,1",
        "learner.learning_rate: a number is expected, got '0,1' (in override "
        "'learner.learning_rate=0,1')",
    ),
    of_override(
        "an infinite number",
        "learner.learning_rate=.inf",
        "learner.learning_rate: a finite number is expected, got inf (in override "
        "'learner.learning_rate=.inf')",
    ),
    of_override(
        "a share above one",
        "student.sampling.top_p=1.5",
        "student.sampling.top_p: at most 1.0 is expected, got 1.5 (in override "
        "'student.sampling.top_p=1.5')",
    ),
    of_override(
        "a decay rate above one, within a list",
        "learner.adam_betas=[0.9, 2]",
        "learner.adam_betas.1: less than 1.0 is expected, got 2 (in override "
        "'learner.adam_betas=[0.9, 2]')",
    ),
    of_override(
        "a list that is too short",
        "learner.adam_betas=[0.9]",
        "learner.adam_betas.1 is missing: a value is expected (in override "
        "'learner.adam_betas=[0.9]')",
    ),
    of_override(
        "a teacher of another kind",
        "teacher.type=open",
        "teacher.type: one of model, openai is expected, got 'open' (in override "
        "'teacher.type=open')",
    ),
    of_override(
        "a name that is a path",
        "name=a/b",
        "name: text that matches … is expected, got 'a/b' (in override 'name=a/b')",
    ),
    of_override(
        "the home of nobody",
        "cache=~no-such-user/cache",
        "path ~no-such-user/cache: whose home folder is meant? Write the path out",
    ),
    of_override(
        "a template that looks into a column",
        "data.template={a.b}",
        "data.template: the template '{a.b}' may only hold plain {column} fields; a literal brace "
        "is written {{ or }} (in override 'data.template={a.b}')",
    ),
    Malformed(
        "an address with a password, which is not repeated",
        "teacher.base_url must hold no name or password: put an API key into teacher.key_file (in "
        "override 'teacher.base_url=http://***@teacher:99999/v1')",
        overrides=(
            "teacher.type=openai",
            "teacher.model=big",
            "teacher.base_url=http://ada:s3cret@teacher:99999/v1",
        ),
    ),
    of_override(
        "a queue smaller than a batch",
        "replay.max_tuples=4",
        "replay.max_tuples (4) must hold at least one batch: learner.batch_size is 32",
    ),
    of_override(
        "a model that is both loaded and made",
        "student.model=/models/small",
        "exactly one of student.model and student.make must be set, and both are; set "
        "student.model=FOLDER, with student.make=null where the recipe makes one",
    ),
    Malformed(
        "several actors in one process",
        "cluster.local runs one actor of each role, and learner.ranks, student.replicas or "
        "teacher.replicas is larger; set cluster.local=false",
        overrides=("cluster.local=true", "student.replicas=2"),
    ),
    Malformed(
        "a run that begins with more samplers than it shall have",
        "student.initial_replicas (3) is more than all samplers: student.replicas is 2",
        overrides=("student.initial_replicas=3", "student.replicas=2"),
    ),
    Malformed(
        "an engine that is split over GPUs which it is not given",
        "student.tensor_parallel=2 splits a sampler over 2 GPUs, and cluster.sampler.gpus=1 gives "
        "it others; set cluster.sampler.gpus=2",
        overrides=("student.tensor_parallel=2", "cluster.sampler.gpus=1"),
    ),
    Malformed(
        "newcomers to a transport that is opened once",
        "student.initial_replicas with student.weight_transfer=ipc: that transport is opened "
        "once, for the samplers there are; set it to object_store",
        overrides=(
            "student.replicas=2",
            "student.initial_replicas=1",
            "student.weight_transfer=ipc",
            "student.dtype=bfloat16",
            "learner.dtype=bfloat16",
        ),
    ),
]
