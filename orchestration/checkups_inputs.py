"""What a run reads: data files, model folders, tokenizers; by the code that reads them."""

from collections.abc import Sequence
from pathlib import Path

from configs.data import DataConfig
from configs.models import ModelSource
from configs.run import RunConfig
from orchestration.checkups import Finding
from orchestration.checkups_needs import folder_of, parameters_in


def check_data(config: DataConfig) -> Finding:
    """Load every data file as a run does; raises its DataError."""
    from actors.prompts import layout_of
    from actors.rows import Layout, load_rows

    if config.train == "embedded":
        return Finding("data", "ok", f"{config.embedded_rows} rows are generated")
    files = {"train": (config.train, layout_of(config))}
    if config.validation:
        files["validation"] = (config.validation, layout_of(config, min_response_words=0))
    if config.corpus:
        files["corpus"] = (config.corpus, Layout(response="text"))
    seen = []
    for name, (path, layout) in files.items():
        rows = load_rows(Path(path), layout, on_bad_row=config.on_bad_row)
        left_out = f" ({rows.skipped.total()} left out)" if rows.skipped else ""
        seen.append(f"{name} {path}: {len(rows)} rows{left_out}")
    return Finding("data", "ok", "; ".join(seen))


def check_models(sources: Sequence[tuple[str, ModelSource]], *, offline: bool) -> Finding:
    """Find the models that are loaded, and see that their folders are complete.

    ``offline``: nothing may be downloaded. Raises DependencyError for one that is neither a
    whole model nor a name that a hub may know.
    """
    from actors.model_folder import model_folder, require_model

    seen, absent = [], []
    for role, source in sources:
        if source.model is None:
            seen.append(f"{role}: made by the run")
            continue
        require_model(source.model)
        folder = folder_of(source)
        if folder is None:
            absent.append(source.model)
            continue
        count = parameters_in(model_folder(str(folder)))
        seen.append(f"{role}: {source.model}, {count / 1e6:.4g} M parameters")
    if absent:
        detail = f"not on this machine, and taken for names at the hub: {', '.join(absent)}"
        if offline:
            fix = "unset HF_HUB_OFFLINE, or give folders"
            return Finding("models", "problem", detail, fix)
        fix = f"see that the hub can be reached, or get each before: `hf download {absent[0]}`"
        return Finding("models", "warning", detail, fix)
    return Finding("models", "ok", "; ".join(seen))


def check_tokenizers(config: RunConfig) -> Finding:
    """Compare the tokenizers of student and teacher, where both are folders.

    Raises ConfigError where they differ, DependencyError where there is none.
    """
    from orchestration.inputs import open_tokenizer, sources_of

    loaded = [source for _, source in sources_of(config) if source.model]
    if not loaded:
        return Finding("tokenizers", "ok", "one is trained on the data")
    hub = [str(each.model) for each in loaded if not Path(str(each.model)).expanduser().is_dir()]
    if hub:
        detail = f"not compared: no folder of this machine is {' or '.join(hub)}"
        return Finding("tokenizers", "warning", detail, "give folders to have them compared now")
    tokenizer = open_tokenizer(config, announce=lambda text: None)
    kind = "the same for teacher and student" if len(loaded) == 2 else "one"
    return Finding("tokenizers", "ok", f"{kind}, of {len(tokenizer)} tokens")
