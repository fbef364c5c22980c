"""All that is wrong with what an overlay comes to, a sentence each."""

from pathlib import Path

from tests.deploy.agreement_with_code import entrypoint_complaints
from tests.deploy.environments import environment_complaints
from tests.deploy.exposure import exposure_complaints
from tests.deploy.images import image_complaints
from tests.deploy.manifests import Manifest, of_kind
from tests.deploy.mounts import mount_complaints
from tests.deploy.network_rules import network_complaints
from tests.deploy.operator_rules import job_complaints, pod_complaints
from tests.deploy.pod_security import security_complaints
from tests.deploy.ray_start import ray_start_complaints
from tests.deploy.references import reference_complaints
from tests.deploy.schemas import schema_complaints
from tests.deploy.scraping import scraping_complaints
from tests.deploy.submission import submission_complaints


def complaints(manifests: list[Manifest], folder: Path) -> list[str]:
    """Return them; ``folder`` is there to write to."""
    jobs = of_kind(manifests, "RayJob")
    if len(jobs) != 1:
        return [f"there are {len(jobs)} RayJobs: a run is one"]
    (job,) = jobs
    return [
        *(complaint for manifest in manifests for complaint in schema_complaints(manifest)),
        *job_complaints(job),
        *pod_complaints(job),
        *security_complaints(manifests),
        *network_complaints(manifests),
        *reference_complaints(manifests, job),
        *exposure_complaints(manifests, job),
        *mount_complaints(job),
        *environment_complaints(job),
        *image_complaints(job),
        *ray_start_complaints(job),
        *submission_complaints(job),
        *scraping_complaints(manifests, job),
        *entrypoint_complaints(manifests, folder),
    ]
