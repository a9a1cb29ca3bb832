"""`Container.withExec` and what it answers."""

from __future__ import annotations

from ci.engine.build.steps import Result
from ci.engine.errors import FieldError, Unsupported
from ci.engine.needs import Outcome, Steps
from ci.engine.reading import solve
from ci.engine.registry import Args, Call, field
from ci.engine.values import After, Container, Ran, Step, TreeMount


@field("Container", "withExec")
def with_exec(ctx: Call, parent: Container, args: Args) -> Container:
    if args["insecureRootCapabilities"]:
        raise Unsupported("withExec(insecureRootCapabilities: true)")
    if args["experimentalPrivilegedNesting"]:
        raise Unsupported("withExec(experimentalPrivilegedNesting: true)")
    if args["stdin"] and args["redirectStdin"]:
        raise FieldError("cannot set both stdin and redirectStdin")

    def expanded(text: str) -> str:
        return parent.expand(text) if args["expand"] else text

    def path(name: str) -> str:
        return args[name] and parent.absolute(expanded(args[name]))

    words = [expanded(w) for w in args["args"]] or list(parent.default_args)
    if args["useEntrypoint"]:
        words = [*parent.entrypoint, *words]
    gone = tuple(n for n, _ in parent.base_env if parent.variable(n) is None)
    step = Step(
        base=parent.fs,
        args=tuple(words),
        env=parent.env,
        dropped=gone,
        volatile=parent.volatile,
        secrets=parent.secrets,
        user=parent.user,
        workdir=parent.workdir,
        stdin=args["stdin"] or None,
        redirect_stdin=path("redirectStdin"),
        redirect_stdout=path("redirectStdout"),
        redirect_stderr=path("redirectStderr"),
        expect=args["expect"],
        mounts=parent.mounts,
        platform=parent.platform,
        no_init=args["noInit"],
        gpus=tuple(parent.extra.get("gpus", ())),
        around=parent.around,
    )
    written = set(step.written_mounts())
    mounts = tuple(
        TreeMount(m.path, After(step, i), "file" if m.lone else "", m.lone, False, "", m.shown)
        if i in written and isinstance(m, TreeMount)
        else m
        for i, m in enumerate(parent.mounts)
    )
    return parent.with_(fs=Ran(step), step=step, mounts=mounts)


def _outcome(parent: Container) -> Steps:
    step = parent.step
    if step is None:
        raise FieldError("no command has been set")
    if not step.args:
        raise FieldError("no command has been set", lazy=True)
    result: Result = (yield [Outcome(step)])[0]
    return result


@field("Container", "stdout")
def stdout(ctx: Call, parent: Container, args: Args) -> Steps:
    return (yield from _outcome(parent)).stdout


@field("Container", "stderr")
def stderr(ctx: Call, parent: Container, args: Args) -> Steps:
    return (yield from _outcome(parent)).stderr


@field("Container", "combinedOutput")
def combined_output(ctx: Call, parent: Container, args: Args) -> Steps:
    return (yield from _outcome(parent)).combined


@field("Container", "exitCode")
def exit_code(ctx: Call, parent: Container, args: Args) -> Steps:
    return (yield from _outcome(parent)).code


@field("Container", "sync")
def sync(ctx: Call, parent: Container, args: Args) -> Steps:
    yield from solve(ctx, parent.fs)
    return ctx.parent
