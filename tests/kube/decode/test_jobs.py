"""Jobs and CronJobs: how many pods at once, with which labels, and what Kubernetes refuses."""

from __future__ import annotations

import time

import pytest

from romana_ovs.kube.decode.workloads import Workload
from romana_ovs.kube.snapshot import ClusterSnapshot
from tests.support.manifests import item, loaded, workload

JOB_KEYS = {
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "controller-uid",
    "job-name",
}


def labels(found: ClusterSnapshot) -> list[dict[str, str]]:
    return [dict(pod.labels) for pod in found.cluster.pods.values()]


@pytest.mark.parametrize(
    ("spec", "status", "count"),
    [
        ("", "", 1),
        ("  parallelism: 3\n", "", 3),
        ("  parallelism: 3\n  completions: 2\n", "", 2),
        ("  completions: 5\n", "", 1),
        ("  completions: 5\n  parallelism: 3\n", "status: {succeeded: 4}\n", 1),
        ("  parallelism: 3\n  suspend: true\n", "", 0),
        ("  parallelism: 0\n", "", 0),
        ("  completions: 0\n", "", 0),
        ("  managedBy: kueue.x-k8s.io/multikueue\n", "", 0),
        ("  managedBy: kubernetes.io/job-controller\n", "", 1),
        ("  parallelism: 3\n", "status: {conditions: [{type: Complete, status: 'True'}]}\n", 0),
        ("  parallelism: 3\n", "status: {conditions: [{type: FailureTarget, status: 'True'}]}\n", 0),
        ("  parallelism: 3\n", "status: {conditions: [{type: Failed, status: 'False'}]}\n", 3),
    ],
)
def test_a_job_runs_as_many_as_it_may_at_once(spec: str, status: str, count: int) -> None:
    found = loaded(a=workload("Job", "j", spec) + status)
    assert found.problems == ()
    assert list(found.cluster.pods) == [f"default/j-{number}" for number in range(count)]
    assert len(found.left_out) == (0 if count else 1)


def test_pods_of_a_job_have_its_name_and_uid() -> None:
    (made,) = labels(loaded(a=workload("Job", "j", metadata="  uid: u-1\n")))
    assert made == {"app": "w"} | {key: "j" if "name" in key else "u-1" for key in JOB_KEYS}
    (made,) = labels(loaded(a=workload("Job", "j")))
    assert {made[key] for key in JOB_KEYS} == {"j", "unknown"}


def test_labels_of_a_job_of_a_cluster_stay() -> None:
    found = loaded(a=workload("Job", "j", "  selector: {matchLabels: {controller-uid: x}}\n", "{controller-uid: x}"))
    assert found.problems == ()
    assert labels(found)[0]["controller-uid"] == "x"


def test_a_manual_selector_adds_no_labels() -> None:
    text = "  manualSelector: true\n  selector: {matchLabels: {app: w}}\n"
    assert labels(loaded(a=workload("Job", "j", text))) == [{"app": "w"}]


def test_an_indexed_job_has_the_first_open_indexes() -> None:
    spec = "  completionMode: Indexed\n  completions: 9\n  parallelism: 3\n"
    status = "status: {completedIndexes: '0-2,5', failedIndexes: '4'}\n"
    found = loaded(a=workload("Job", "j", spec) + status)
    assert list(found.cluster.pods) == ["default/j-3", "default/j-6", "default/j-7"]
    key = "batch.kubernetes.io/job-completion-index"
    assert [one[key] for one in labels(found)] == ["3", "6", "7"]
    assert list(loaded(a=workload("Job", "j", spec)).cluster.pods) == [f"default/j-{number}" for number in range(3)]


@pytest.mark.parametrize(
    ("completed", "pods"),
    [
        ("0-1,0-4,2", [5, 6]),
        ("7,5,3,1,0-1", [2, 4]),
        ("4-2,8-8", [0, 1]),
        ("0," + "9" * 5_000, [1, 2]),
        ("0-" + "9" * 5_000 + ",1", [0, 2]),
        ("0-99", []),
    ],
)
def test_indexes_that_have_ended_may_be_in_any_order(completed: str, pods: list[int]) -> None:
    spec = "  completionMode: Indexed\n  completions: 9\n  parallelism: 2\n"
    found = loaded(a=workload("Job", "j", spec) + f"status: {{completedIndexes: '{completed}'}}\n")
    assert list(found.cluster.pods) == [f"default/j-{index}" for index in pods]


def test_many_indexes_that_have_ended_take_no_time() -> None:
    count = 20_000
    spec = f"  completionMode: Indexed\n  completions: {2 * count}\n  parallelism: {count}\n"
    status = f"status: {{completedIndexes: '{','.join(map(str, range(0, 2 * count, 2)))}'}}\n"
    started = time.process_time()
    value = item(workload("Job", "j", spec) + status).value
    assert time.process_time() - started < 1
    assert isinstance(value, Workload) and value.ordinals == tuple(range(1, 2 * count, 2))


def test_a_cron_job_makes_one_run() -> None:
    found = loaded(a=workload("CronJob", "c", "  parallelism: 2\n"))
    assert found.problems == ()
    assert list(found.cluster.pods) == ["default/c-0", "default/c-1"]
    assert labels(found)[0]["job-name"] == "c-unknown", "its Job is c and a time: job-name=c selects none in a cluster"
    suspended = workload("CronJob", "c").replace("  schedule:", "  suspend: true\n  schedule:")
    assert loaded(a=suspended).cluster.pods == {}
    assert loaded(a=workload("CronJob", "c", "  suspend: true\n")).left_out[0].reason == (
        "is suspended (spec.jobTemplate.spec.suspend), so it has no pods"
    )


@pytest.mark.parametrize(
    ("text", "field", "reason"),
    [
        (
            workload("Job", "j", labels="{job-name: k}"),
            "spec.template.metadata.labels.job-name",
            'must be j, the Job\'s name, or absent, not "k"',
        ),
        (workload("Job", "j" * 64), "metadata.name", "is a label of its pods, and label value"),
        (workload("CronJob", "c" * 53), "metadata.name", "is longer than 52 characters"),
        (
            workload("Job", "j", "  completionMode: Indexed\n"),
            "spec.completions",
            "is required when completionMode is Indexed",
        ),
        (workload("Job", "j", "  completionMode: Some\n"), "spec.completionMode", "is none of NonIndexed, Indexed"),
        (workload("CronJob", "c", "  parallelism: x\n"), "spec.jobTemplate.spec.parallelism", "must be a number"),
        ("apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: c}\n", "spec.jobTemplate.spec.template", "is required"),
    ],
)
def test_what_kubernetes_refuses_is_an_error(text: str, field: str, reason: str) -> None:
    found = item(text)
    assert found.value is None
    (problem,) = found.problems
    assert problem.field == field
    assert reason in problem.reason


def test_a_name_too_long_for_a_stateful_set_is_a_problem() -> None:
    (problem,) = item(workload("StatefulSet", "s" * 53)).problems
    assert "the labels of its pods are too long" in problem.reason


def test_a_selector_of_an_old_uid_is_a_problem() -> None:
    found = item(workload("Job", "j", "  selector: {matchLabels: {controller-uid: old}}\n"))
    assert [problem.field for problem in found.problems] == ["spec.selector"]
