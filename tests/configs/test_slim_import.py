"""No configs module brings in anything heavy."""

import subprocess
import sys
from pathlib import Path

FORBIDDEN = ("torch", "ray", "vllm", "deepspeed", "transformers", "prometheus_client", "pyarrow")
ROOT = Path(__file__).parents[2]


def test_no_configs_module_imports_anything_heavy() -> None:
    modules = [f"configs.{path.stem}" for path in sorted((ROOT / "configs").glob("*.py"))]
    assert "configs.load" in modules
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        f"    for heavy in {FORBIDDEN!r}:\n"
        "        assert heavy not in sys.modules, f'{name} imports {heavy}'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr.splitlines()[-1]
