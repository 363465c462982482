"""NodePermissions mean what the reference evaluation says, whatever the cluster, and whatever was there before."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import Connection
from romana_ovs.model.objects import NAME_LABEL, Namespace
from romana_ovs.policy.classes import ClassAllocator
from romana_ovs.policy.evaluate import Reference
from romana_ovs.policy.resolve import ResolveCache, resolve
from romana_ovs.policy.rules import NormalPolicy
from tests.policy.verdict_reading import Reading, node_views, normal_policies, numbers_of, register
from tests.support import strategies
from tests.support.hypothesis_profiles import examples


def read(cluster: Cluster, allocator: ClassAllocator | None = None) -> Reading:
    allocator = ClassAllocator() if allocator is None else allocator
    numbers, policies = numbers_of(cluster), normal_policies(cluster)
    register(allocator, cluster, numbers, policies=policies)
    addresses = strategies.addresses_of(cluster)
    return Reading.of(node_views(cluster, addresses, allocator=allocator, numbers=numbers, policies=policies))


def decided_by_policy(cluster: Cluster, connection: Connection) -> bool:
    """Whether it is permissions that decide: not where an end is absent, or its own node, or the pod itself."""
    ends = [connection.source, connection.destination]
    pods = [cluster.pods[end.pod] for end in ends if end.pod is not None]
    if not pods or not all(pod.networked for pod in pods) or ends[0] == ends[1]:
        return False
    nodes = [end.node for end in ends if end.pod is None]
    return not nodes or nodes[0] != pods[0].node


@settings(max_examples=examples(200), deadline=None)
@given(data=st.data(), cluster=strategies.clusters())
def test_verdicts_agree_with_the_reference(data: st.DataObject, cluster: Cluster) -> None:
    reading = read(cluster)
    reference = Reference.of(cluster, strategies.addresses_of(cluster))
    for connection in data.draw(st.lists(strategies.packets(cluster), min_size=1, max_size=30)):
        if decided_by_policy(cluster, connection):
            assert reading.admits(connection) == reference.allowed(connection), str(connection)


@settings(max_examples=examples(60), deadline=None)
@given(data=st.data(), first=strategies.clusters())
def test_a_cache_and_a_history_change_no_answer(data: st.DataObject, first: Cluster) -> None:
    allocator = ClassAllocator()
    caches: dict[str, ResolveCache] = {}
    cluster, policies = first, normal_policies(first)
    for _ in range(data.draw(st.integers(2, 4))):
        numbers, addresses = numbers_of(cluster), strategies.addresses_of(cluster)
        register(allocator, cluster, numbers, policies=policies)
        views = node_views(cluster, addresses, allocator=allocator, numbers=numbers, policies=policies)
        reading = Reading.of(views, {node: caches.setdefault(node, ResolveCache()) for node in views})
        for node, view in views.items():
            assert reading.permissions[node] == resolve(view)
        reference = Reference.of(cluster, addresses)
        for connection in data.draw(st.lists(strategies.packets(cluster), min_size=1, max_size=10)):
            if decided_by_policy(cluster, connection):
                assert reading.admits(connection) == reference.allowed(connection), str(connection)
        cluster = data.draw(changes(cluster))
        policies = carried_over(cluster, policies)


@st.composite
def changes(draw: st.DrawFn, cluster: Cluster) -> Cluster:
    """`cluster` with one thing changed: a pod relabelled or gone, a policy gone or new, a namespace relabelled."""
    what = draw(st.sampled_from(("relabel", "relabel", "remove", "policy", "no policy", "namespace", "other")))
    if what == "relabel":
        pod = draw(st.sampled_from(sorted(cluster.pods.values(), key=lambda pod: pod.key)))
        return cluster.with_object(replace(pod, labels=draw(strategies.labels())))
    if what == "remove":
        pod = draw(st.sampled_from(sorted(cluster.pods.values(), key=lambda pod: pod.key)))
        return cluster.without(pod) if len(cluster.pods) > 1 else cluster
    if what == "policy":
        namespace = draw(st.sampled_from(sorted(cluster.namespaces)))
        if draw(st.booleans()):
            return cluster.with_object(draw(strategies.kubernetes_policies(namespace, "policy9")))
        return cluster.with_object(draw(strategies.romana_policies(namespace, "policy9")))
    if what == "no policy" and cluster.policies:
        return cluster.without(draw(st.sampled_from([policy for _, policy in sorted(cluster.policies.items())])))
    if what == "namespace":
        name = draw(st.sampled_from(sorted(cluster.namespaces)))
        labels = draw(strategies.labels(**{NAME_LABEL: name}))
        return cluster.with_object(Namespace(name, labels))
    return replace(cluster, settings=draw(strategies.cluster_settings()))


def carried_over(new: Cluster, policies: tuple[NormalPolicy, ...]) -> tuple[NormalPolicy, ...]:
    """The normal policies of `new`: the same objects wherever they are equal, as a caller that remembers gives them."""
    known = {policy.key: policy for policy in policies}
    return tuple(known[policy.key] if known.get(policy.key) == policy else policy for policy in normal_policies(new))


@settings(max_examples=examples(80), deadline=None)
@given(data=st.data(), cluster=strategies.clusters())
def test_an_identity_that_the_tables_do_not_know_gains_nothing(data: st.DataObject, cluster: Cluster) -> None:
    whole = read(cluster)
    blind = {node: replace(view, classes={}) for node, view in whole.views.items()}
    reading = Reading(whole.views, {node: resolve(view) for node, view in blind.items()})
    for connection in data.draw(st.lists(strategies.packets(cluster), min_size=1, max_size=20)):
        if decided_by_policy(cluster, connection) and reading.admits(connection):
            assert whole.admits(connection), str(connection)


@settings(max_examples=examples(80), deadline=None)
@given(data=st.data(), cluster=strategies.clusters())
def test_pods_of_known_classes_change_no_other_node(data: st.DataObject, cluster: Cluster) -> None:
    twin = data.draw(st.sampled_from(sorted(cluster.pods.values(), key=lambda pod: pod.key)))
    more = cluster.with_object(replace(twin, name="twin", node="elsewhere", address=None, has_status=False))
    allocator, numbers, policies = ClassAllocator(), numbers_of(cluster), normal_policies(cluster)
    if not twin.networked:
        return
    register(allocator, cluster, numbers, policies=policies)
    before = node_views(
        cluster, strategies.addresses_of(cluster), allocator=allocator, numbers=numbers, policies=policies
    )
    register(allocator, more, numbers, policies=policies)
    after = node_views(
        cluster, strategies.addresses_of(cluster), allocator=allocator, numbers=numbers, policies=policies
    )
    for node in cluster.nodes:
        assert after[node] == before[node]
        assert after[node].classes is before[node].classes


@settings(max_examples=examples(40), deadline=None)
@given(cluster=strategies.clusters())
def test_the_order_of_policies_and_classes_does_not_matter(cluster: Cluster) -> None:
    for view in read(cluster).views.values():
        turned = replace(
            view,
            pods=view.pods[::-1],
            policies=view.policies[::-1],
            classes=dict(reversed(list(view.classes.items()))),
            segments=dict(reversed(list(view.segments.items()))),
        )
        assert resolve(turned) == resolve(view)
