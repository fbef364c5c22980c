"""All that is wrong with what an overlay comes to, a sentence each."""

from pathlib import Path

from tests.deploy.agreement_with_code import code_complaints
from tests.deploy.manifests import Manifest, of_kind, one
from tests.deploy.operator_rules import job_complaints, operator_complaints, pod_complaints
from tests.deploy.schemas import schema_complaints


def complaints(manifests: list[Manifest], folder: Path) -> list[str]:
    """Return them; ``folder`` is there to write to."""
    job = one(manifests, "RayJob")
    return [
        *(complaint for manifest in manifests for complaint in schema_complaints(manifest)),
        *job_complaints(job),
        *pod_complaints(job),
        *operator_complaints(of_kind(manifests, "NetworkPolicy")),
        *code_complaints(manifests, folder),
    ]
