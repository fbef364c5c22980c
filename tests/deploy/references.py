"""Names, namespaces and claims: whether manifests belong together and mean what there is.

Each function returns what is wrong, a sentence each.
"""

from collections import Counter
from collections.abc import Iterator

from tests.deploy.lenient import mapping, mappings, name_of, text, texts
from tests.deploy.manifests import Manifest
from tests.deploy.pods import Pod, pods_of, workers_of
from tests.deploy.quantities import quantity

OF_NO_NAMESPACE = {
    "Namespace",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "PersistentVolume",
    "PriorityClass",
    "StorageClass",
}
ACCESS_MODES = {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"}


def reference_complaints(manifests: list[Manifest], job: Manifest) -> list[str]:
    """Return which manifests are elsewhere, missing, named twice, or too small for their use."""
    return [
        *_namespaces(manifests),
        *_names(manifests),
        *(complaint for pod in pods_of(job) for complaint in _meant(manifests, pod)),
        *_claims(manifests, job),
    ]


def named(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    """The manifests of a kind by name."""
    return {name_of(each): each for each in manifests if text(each, "kind") == kind}


def namespace_of(manifests: list[Manifest]) -> str:
    """The namespace that a run has to itself."""
    return next(iter(named(manifests, "Namespace")), "")


def _namespaces(manifests: list[Manifest]) -> Iterator[str]:
    spaces = named(manifests, "Namespace")
    if len(spaces) != 1:
        yield f"there are {len(spaces)} Namespaces: a run has one to itself"
        return
    for each in manifests:
        kind, space = text(each, "kind"), text(each, "metadata", "namespace")
        if kind not in OF_NO_NAMESPACE and space not in spaces:
            yield f"{kind} {name_of(each)} is in namespace {space!r}, not in {', '.join(spaces)}"


def _names(manifests: list[Manifest]) -> Iterator[str]:
    for (kind, name), count in Counter((text(m, "kind"), name_of(m)) for m in manifests).items():
        if not kind or not name:
            yield f"a manifest has no kind or no name: kind {kind!r}, name {name!r}"
        elif count > 1:
            yield f"there are {count} of {kind} {name}"


def _meant(manifests: list[Manifest], pod: Pod) -> Iterator[str]:
    """What a pod's specification names, and is not there."""
    account = text(pod.spec, "serviceAccountName") or "default"
    if account not in named(manifests, "ServiceAccount"):
        yield f"{pod.where}: there is no ServiceAccount {account}"
    for kind, name in _needed(pod):
        if name not in named(manifests, kind):
            yield f"{pod.where}: there is no {kind} {name}"


def _needed(pod: Pod) -> Iterator[tuple[str, str]]:
    """Kind and name of what a pod does not start without."""
    for volume in pod.volumes.values():
        if "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", text(volume, "persistentVolumeClaim", "claimName")
        for key, kind, name in (
            ("configMap", "ConfigMap", "name"),
            ("secret", "Secret", "secretName"),
        ):
            source = mapping(volume, key)
            if key in volume and source.get("optional") is not True:
                yield kind, text(source, name)
    for container in pod.containers:
        sources = [mapping(each, "valueFrom") for each in mappings(container, "env")]
        for source in sources + mappings(container, "envFrom"):
            for key in ("configMapKeyRef", "configMapRef", "secretKeyRef", "secretRef"):
                if key in source and mapping(source, key).get("optional") is not True:
                    kind = "ConfigMap" if key.startswith("configMap") else "Secret"
                    yield kind, text(source, key, "name")


def _claims(manifests: list[Manifest], job: Manifest) -> Iterator[str]:
    mounting = Counter[str]()
    for pod in workers_of(job):
        claims = {text(v, "persistentVolumeClaim", "claimName") for v in pod.volumes.values()}
        mounting.update(dict.fromkeys(claims, pod.count))
    for name, claim in named(manifests, "PersistentVolumeClaim").items():
        if quantity(mapping(claim, "spec", "resources", "requests").get("storage")) is None:
            yield f"claim {name} asks for no amount of storage"
        yield from _modes(name, texts(claim, "spec", "accessModes"), mounting[name])


def _modes(name: str, modes: list[str], workers: int) -> Iterator[str]:
    yield from (f"claim {name}: no access mode is {mode}" for mode in {*modes} - ACCESS_MODES)
    if not {"ReadWriteOnce", "ReadWriteMany"} & {*modes}:
        yield f"claim {name} lets no two pods write: {', '.join(modes) or 'no access mode'}"
    if workers > 1 and "ReadWriteMany" not in modes:
        yield f"claim {name} is for one node, and {workers} worker pods mount it: ReadWriteMany"
