"""Names, namespaces and claims that do not belong together are complained of, and ways in."""

import pytest

from tests.deploy.manifests import built, of_kind, one
from tests.deploy.planted import Planted, add, assert_caught, container, head, job, pod
from tests.deploy.quantities import quantity
from tests.deploy.references import reference_complaints

PLANTED: Planted = {
    "a manifest in another namespace": (
        lambda m: one(m, "PodMonitor")["metadata"].update(namespace="monitoring"),
        "PodMonitor dpkd is in namespace 'monitoring', not in dpkd",
    ),
    "a manifest in no namespace": (
        lambda m: one(m, "ServiceAccount")["metadata"].pop("namespace"),
        "ServiceAccount dpkd is in namespace '', not in dpkd",
    ),
    "no namespace": (lambda m: m.remove(one(m, "Namespace")), "there are 0 Namespaces"),
    "a second namespace": (lambda m: add(m, "Namespace"), "there are 2 Namespaces"),
    "one name twice": (
        lambda m: m.append(one(m, "PersistentVolumeClaim")),
        "there are 2 of PersistentVolumeClaim dpkd-data",
    ),
    "two jobs": (lambda m: m.append(one(m, "RayJob")), "there are 2 RayJobs"),
    "a name that kustomize has changed": (
        lambda m: one(m, "ConfigMap", "dpkd-recipe")["metadata"].update(name="dpkd-recipe-5k2h"),
        "there is no ConfigMap dpkd-recipe",
    ),
    "another claim": (
        lambda m: one(m, "PersistentVolumeClaim")["metadata"].update(name="data"),
        "learner: there is no PersistentVolumeClaim dpkd-data",
    ),
    "another account": (
        lambda m: pod(m, "teacher")["spec"].update(serviceAccountName="other"),
        "teacher: there is no ServiceAccount other",
    ),
    "no account": (
        lambda m: head(m)["spec"].pop("serviceAccountName"),
        "head: there is no ServiceAccount default",
    ),
    "a secret that must be there": (
        lambda m: container(m).update(envFrom=[{"secretRef": {"name": "other"}}]),
        "head: there is no Secret other",
    ),
    "a claim of no size": (
        lambda m: one(m, "PersistentVolumeClaim")["spec"]["resources"]["requests"].update(
            storage="500 Gi"
        ),
        "claim dpkd-data asks for no amount of storage",
    ),
    "an access mode that is none": (
        lambda m: one(m, "PersistentVolumeClaim")["spec"].update(accessModes=["ReadWriteAll"]),
        "no access mode is ReadWriteAll",
    ),
    "a claim that none may write to": (
        lambda m: one(m, "PersistentVolumeClaim")["spec"].update(accessModes=["ReadOnlyMany"]),
        "lets no two pods write: ReadOnlyMany",
    ),
    "a claim for one node": (
        lambda m: one(m, "PersistentVolumeClaim")["spec"].update(accessModes=["ReadWriteOnce"]),
        "claim dpkd-data is for one node, and 7 worker pods mount it",
    ),
    "a service for everybody": (
        lambda m: add(m, "Service", spec={"type": "LoadBalancer", "ports": [{"port": 8265}]}),
        "Service other is reached from outside: LoadBalancer",
    ),
    "a port of every node": (
        lambda m: add(m, "Service", spec={"type": "NodePort", "ports": [{"port": 8265}]}),
        "Service other is reached from outside: NodePort",
    ),
    "an ingress": (
        lambda m: add(m, "Ingress", spec={}),
        "Ingress other leads in from outside",
    ),
    "an ingress that KubeRay makes": (
        lambda m: job(m)["rayClusterSpec"]["headGroupSpec"].update(enableIngress=True),
        "the head has an Ingress",
    ),
    "a head for everybody": (
        lambda m: job(m)["rayClusterSpec"]["headGroupSpec"].update(serviceType="NodePort"),
        "the head's Service is reached from outside: NodePort",
    ),
    "rights": (
        lambda m: add(m, "ClusterRoleBinding"),
        "ClusterRoleBinding other gives rights",
    ),
}


@pytest.mark.parametrize("error", PLANTED)
def test_a_planted_error_is_caught(error, tmp_path):
    assert_caught(PLANTED[error], tmp_path)


def test_one_worker_pod_does_with_a_claim_for_one_node():
    demo = built("cpu-demo")
    (claim,) = of_kind(demo, "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert reference_complaints(demo, one(demo, "RayJob")) == []


def test_quantities_are_read_as_kubernetes_reads_them():
    assert [quantity(each) for each in ("500m", "2", 4, "1k", "8Gi", "1e3", ".5")] == [
        0.5,
        2.0,
        4.0,
        1e3,
        8 * 2.0**30,
        1e3,
        0.5,
    ]
    assert [quantity(each) for each in ("", "8 Gi", "8GB", "-1", "x", None, [])] == [None] * 7
