"""Passes of other distributions: how they are found, what is refused, what is checked."""

from __future__ import annotations

import pytest

from leptonc.passes import PASSES, optimize
from leptonc.passes.errors import PassError, PluginError
from leptonc.passes.plugins import STAGE_NAMES, load_plugins, plugin_passes
from leptonc.passes.schedule import STAGES
from leptonc.passes.targets import TARGETS

TEXT = "g (float[2] x) => (float[2] y) { a = Neg(x)  y = Relu(a) }"

# A pass named "acme" that does what stands in `run`.
ACME = """
class Acme:
    name = "acme"
    {extra}

    def requires(self, model):
        return {requires}

    def run(self, model, context):
        {run}
"""
RELU_TO_ABS = """
        for node in model.graph:
            if node.op_type == "Relu":
                node.op_type = "Abs"
                return stats(self.name)
        return stats(self.name, 0)
"""


def acme(run: str = "return stats(self.name, 0)", requires: str = "None", extra: str = "") -> str:
    return ACME.format(run=run.strip(), requires=requires, extra=extra)


def test_stages_have_the_names_that_plugins_know():
    assert tuple(stage.name for stage in STAGES) == STAGE_NAMES


def test_without_a_plugin_there_is_none():
    assert load_plugins() == ()


def test_plugins_are_loaded_by_name_with_their_distributions(install_plugin):
    install_plugin(acme().replace("acme", "zeta"), {"zeta": "Acme"}, distribution="zeta-1")
    install_plugin(
        acme(extra="stage = 'lower'; targets = ('ort-cpu',)"), {"acme": "Acme"}, version="3"
    )
    first, second = load_plugins(["clean"])
    assert (first.name, first.origin, first.stage) == ("acme", "acme-passes 3", "lower")
    assert (second.name, second.origin, second.stage) == ("zeta", "zeta-1 1.2.0", "fuse")
    assert (first.targets, second.targets) == ({"ort-cpu"}, set(TARGETS))
    assert first.to_json() == {
        "name": "acme",
        "distribution": "acme-passes",
        "version": "3",
        "stage": "lower",
    }


def test_a_pass_runs_in_its_stage_for_its_targets(install_plugin):
    install_plugin(acme(extra="stage = 'lower'; targets = ('ort-cpu',)"), {"acme": "Acme"})
    plugins = load_plugins()
    found = {
        (stage, target): [one.name for one in plugin_passes(plugins, stage, target)]
        for stage in STAGE_NAMES
        for target in TARGETS
    }
    assert {key for key, names in found.items() if names} == {("lower", "ort-cpu")}
    assert found["lower", "ort-cpu"] == ["acme"]


def test_a_pass_is_given_the_target_and_the_facts(install_plugin, parse):
    install_plugin(
        """
        class Acme:
            name = "acme"
            def run(self, model, context):
                told = Refusal("", f"{context.target}, {type(context.facts).__name__}")
                return PassStats(self.name, (), 2, 2, refused=(told,))
        """,
        {"acme": "Acme"},
    )
    stats = optimize(parse(TEXT), target="ort-cuda", plugins=load_plugins())
    (mine,) = (one for one in stats if one.name == "acme")
    assert [near.reason for near in mine.refused] == ["ort-cuda, Facts"]


def test_a_function_may_make_the_pass(install_plugin, parse):
    install_plugin(
        acme(RELU_TO_ABS) + "\ndef make(strength=3):\n    return Acme()\n", {"acme": "make"}
    )
    model = parse(TEXT)
    optimize(model, plugins=load_plugins())
    assert [node.op_type for node in model.graph] == ["Neg", "Abs"]


def test_an_entry_point_may_be_the_pass_itself(install_plugin, parse):
    install_plugin(acme(RELU_TO_ABS) + "\nACME = Acme()\n", {"acme": "ACME"})
    model = parse(TEXT)
    optimize(model, plugins=load_plugins())
    assert [node.op_type for node in model.graph] == ["Neg", "Abs"]


def test_a_pass_that_asks_for_nothing_needs_no_method_for_it(install_plugin, parse):
    code = acme(RELU_TO_ABS).replace("    def requires(self, model):\n        return None\n", "")
    assert "requires" not in code
    install_plugin(code, {"acme": "Acme"})
    model = parse(TEXT)
    optimize(model, plugins=load_plugins())
    assert [node.op_type for node in model.graph] == ["Neg", "Abs"]


def test_what_a_plugin_did_is_reported_and_stamped(install_plugin, parse):
    install_plugin(acme(RELU_TO_ABS), {"acme": "Acme"})
    model = parse(TEXT)
    stats = optimize(model, plugins=load_plugins())
    assert [one.counts for one in stats if one.name == "acme"] == [(("changes", 1),)]
    stamps = [node.metadata_props.get("leptonc.pass") for node in model.graph]
    assert stamps == [None, "acme"]
    assert not any(one.changed for one in optimize(model, plugins=load_plugins()))


LOADING = {
    "import": ("import nobody", "Acme", "it cannot be imported: ModuleNotFoundError"),
    "exit": ("raise SystemExit(3)", "Acme", "it cannot be imported: SystemExit: 3"),
    "attribute": ("", "Acme", "it cannot be imported: AttributeError"),
    "not callable": ("Acme = 3", "Acme", "int is not a pass: it has no method run(model, context)"),
    "arguments": ("def Acme(size): ...", "Acme", "it cannot be made: TypeError"),
    "no pass": ("def Acme(): return 3", "Acme", "int is not a pass: it has no method run"),
    "no run": (
        "class Acme:\n    name = 'acme'\n    def requires(self, model): ...",
        "Acme",
        "Acme is not a pass: it has no method run",
    ),
    "name": (acme().replace("'acme'", "'b'").replace('"acme"', '"b"'), "Acme", "calls itself 'b'"),
    "stage": (acme(extra="stage = 'late'"), "Acme", "its stage 'late' is not one of canonical"),
    "targets": (acme(extra="targets = ['npu']"), "Acme", "its targets ['npu'] are not some of"),
    "target": (acme(extra="targets = 'generic'"), "Acme", "its targets 'generic' are not"),
    "no target": (acme(extra="targets = ()"), "Acme", "its targets () are not some of"),
}


@pytest.mark.parametrize(("code", "attribute", "message"), LOADING.values(), ids=LOADING)
def test_a_plugin_that_cannot_be_used_names_its_distribution(
    install_plugin, code, attribute, message
):
    install_plugin(code, {"acme": attribute})
    with pytest.raises(PluginError) as caught:
        load_plugins()
    assert message in caught.value.what
    assert caught.value.where == f"acme-passes 1.2.0, entry point acme = acme_passes:{attribute}"
    assert "--without-plugins" in (caught.value.fix or "")
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("name", [one.name for one in PASSES])
def test_a_name_of_ours_is_refused(install_plugin, name):
    install_plugin(acme().replace("acme", name), {name: "Acme"})
    with pytest.raises(PluginError, match="is that of a pass of leptonc"):
        load_plugins([one.name for one in PASSES])


def test_two_plugins_of_one_name_are_refused(install_plugin):
    install_plugin(acme(), {"acme": "Acme"}, distribution="first")
    install_plugin(acme(), {"acme": "Acme"}, distribution="second")
    with pytest.raises(PluginError, match=r"the name 'acme' is taken by first 1.2.0") as caught:
        load_plugins()
    assert caught.value.where == "second 1.2.0, entry point acme = second:Acme"


RUNNING = {
    "raises": ("raise ValueError('surprise')", "failed: ValueError: surprise"),
    "exits": ("raise SystemExit('bye')", "failed: SystemExit: bye"),
    "returns nothing": ("pass", "returned None where the PassStats of 'acme' belong"),
    "another name": ("return stats('clean')", "returned PassStats(name='clean'"),
    "invalid": (
        "model.graph[1].replace_input_with(0, ir.Value(name='nobody')); return stats('acme')",
        "left an invalid graph: 'nobody' is read and nothing defines it",
    ),
    "interface": (
        "model.graph.inputs[0].name = 'z'; return stats('acme')",
        "changed the interface of the graph",
    ),
    "uncounted operator": (
        "model.graph[1].op_type = 'Abs'; return stats('acme', 0)",
        "changed the graph and counted no change",
    ),
}


@pytest.mark.parametrize(("run", "message"), RUNNING.values(), ids=RUNNING)
def test_a_plugin_that_fails_names_its_distribution(install_plugin, parse, run, message):
    install_plugin(acme(run), {"acme": "Acme"})
    plugins = load_plugins()
    with pytest.raises(PluginError) as caught:
        optimize(parse(TEXT), plugins=plugins)
    assert caught.value.what.startswith("the plugin 'acme' ")
    assert message in caught.value.what
    assert caught.value.where is not None
    assert caught.value.where.startswith("acme-passes 1.2.0, entry point acme = acme_passes:Acme")
    assert "the authors of acme-passes" in (caught.value.fix or "")


def test_a_changed_weight_counts_as_a_change(install_plugin, parse):
    run = """
        for value in model.graph.initializers.values():
            value.const_value = ir.tensor([3.0], name=value.name)
        return stats(self.name, 0)
    """
    install_plugin(acme(run), {"acme": "Acme"})
    with pytest.raises(PluginError, match="counted no change"):
        optimize(
            parse("g (float[1] x) => (float[1] y) <float[1] w = {2}> { y = Add(x, w) }"),
            plugins=load_plugins(),
        )


def test_an_error_of_ours_inside_a_plugin_is_one_line(install_plugin, parse):
    run = "from leptonc.passes.errors import PassError; raise PassError('odd', fix='report it')"
    install_plugin(acme(run), {"acme": "Acme"})
    with pytest.raises(PluginError) as caught:
        optimize(parse(TEXT), plugins=load_plugins())
    assert caught.value.what == "the plugin 'acme' failed: PassError: odd"


def test_a_plugin_that_cannot_run_is_a_near_miss(install_plugin, parse):
    install_plugin(acme("raise AssertionError", requires="'no convolution'"), {"acme": "Acme"})
    stats = optimize(parse(TEXT), plugins=load_plugins())
    (mine,) = (one for one in stats if one.name == "acme")
    assert [(near.node, near.reason) for near in mine.refused] == [("", "no convolution")]
    assert (mine.changed, mine.nodes_before, mine.nodes_after) == (0, 2, 2)


def test_a_plugin_without_end_is_named(install_plugin, parse):
    run = """
        node = model.graph[0]
        node.op_type = "Neg" if node.op_type == "Abs" else "Abs"
        return stats(self.name)
    """
    install_plugin(acme(run), {"acme": "Acme"})
    with pytest.raises(PassError, match="do not come to an end") as caught:
        optimize(parse(TEXT), plugins=load_plugins())
    assert caught.value.where == "stage 'fuse', where these go on changing it: acme"
