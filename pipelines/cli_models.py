"""Commands about models: embedding, training, measuring, forecasting. Parses and prints; no job."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli_promotions import promotions
from pipelines.options import Address, Decision, EngineName, Json, Model, Sets, open_here, print_result, say

models = typer.Typer()
models.add_typer(promotions, name="models")


@models.command()
def embed(
    verify: Annotated[
        bool, typer.Option("--verify", help="Embed a sample again and compare it with what is stored; changes nothing.")
    ] = False,
    engine: EngineName = "local",
    address: Address = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Embed every headline that has no vector yet."""
    from pipelines import embed as job
    from pipelines.engine import open_engine
    from pipelines.progress import progress_bar
    from pipelines.verify_embeddings import verify_embeddings

    workspace = open_here(sets)
    parts = (workspace.lake, workspace.embeddings, workspace.config.text)
    if verify:
        checked = verify_embeddings(*parts)
        text = f"{checked.checked} of {checked.stored} vectors made again: worst cosine {checked.worst_cosine:.5f}."
        print_result(checked.as_dict(), json, lambda: text)
        return
    with open_engine(engine, address) as opened, progress_bar("Embedding") as advance:
        result = job.embed(*parts, advance, opened)
    print_result(result.as_dict(), json, lambda: f"{result.texts} texts, {result.embedded} embedded now.")


@models.command("adapt-text")
def adapt_text_command(
    labels: Annotated[Path, typer.Option("--labels", help="CSV, Parquet or JSON lines of texts and their labels.")],
    out: Annotated[
        str | None, typer.Option("--out", metavar="NAME", help="Folder under text/; ENCODER-adapted if left out.")
    ] = None,
    method: Annotated[str, typer.Option(help="What is trained: full | lora.")] = "full",
    epochs: Annotated[int | None, typer.Option(min=1, help="At most; 2 if left out.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=1e-9, help="The peak; the method's if left out.")] = None,
    folds: Annotated[int, typer.Option(min=2, max=20, help="Of the cross-validation.")] = 5,
    text_column: Annotated[str | None, typer.Option(help="Your name of the column `text`.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Your name of the column `label`.")] = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Fine-tune the text encoder on labelled texts and register it as a new one."""
    from pipelines import adapt as job
    from pipelines.adapted import adapted_table
    from pipelines.progress import progress_bar

    workspace = open_here(sets)
    said = {"method": job.parse_method(method), "epochs": epochs, "learning_rate": learning_rate}
    config = job.parse_settings({**said, "seed": workspace.config.seeds[0]})
    columns = {ours: theirs for ours, theirs in (("text", text_column), ("label", label_column)) if theirs is not None}
    with progress_bar("Adapting") as advance:
        result = job.adapt_text(workspace, labels, config, out, folds, columns, advance)
    print_result(result.as_dict(), json, lambda: adapted_table(result))


@models.command()
def train(
    promote: Annotated[bool, typer.Option("--promote", help="Make it the champion, whatever is champion now.")] = False,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Train one model: the first becomes the champion, a later one a challenger."""
    from pipelines.fitting import train as job

    result = job(open_here(sets), promote)
    if result is None:
        return
    for note in result.notes:
        say(note)
    print_result(result.as_dict(), json, result.describe)


@models.command()
def ablate(engine: EngineName = "local", address: Address = None, sets: Sets = None, json: Json = False) -> None:
    """Measure what text adds: price, text and both on the same folds and seeds."""
    from pipelines.ablation import ablate_workspace
    from pipelines.engine import open_engine
    from pipelines.table import ablation_table

    workspace = open_here(sets)
    with open_engine(engine, address) as opened:
        result, notes, path = ablate_workspace(workspace, say, opened)
    for note in notes:
        say(note)
    print_result(result.as_dict(), json, lambda: f"{ablation_table(result)}\nReport: {path}")


@models.command("compare")
def compare_command(
    price: Annotated[
        str, typer.Option(metavar="KIND,...", help="Kinds of price encoder; the first is the reference.")
    ] = "lstm,transformer",
    layers: Annotated[str, typer.Option(help="Depths to fit.")] = "1,2,4,6",
    shares: Annotated[str, typer.Option(help="Shares of the training sessions, the newest.")] = "1/8,1/4,1/2,1",
    lookbacks: Annotated[str, typer.Option(help="Windows whose cost is measured.")] = "20,60,120,250,500",
    widths: Annotated[str, typer.Option(help="Widths whose cost is measured.")] = "16,32,64,128,256",
    seeds: Annotated[str | None, typer.Option(help="Seeds of each fit; those of the settings by default.")] = None,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="On the simulated market, as outside of a workspace.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.md", help="The page; reports/compare.md by default.")
    ] = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Measure price encoders against each other: cost, accuracy by depth and amount of data. Goes on where it was."""
    from pipelines.compare.grid import Grid, parse_counts
    from pipelines.compare.job import compare
    from pipelines.compare.page import compare_table

    grid = Grid.parse(price, layers, shares, lookbacks, widths)
    chosen = None if seeds is None else parse_counts("--seeds", seeds, 0)
    result = compare(Path(), grid, chosen, simulated, out, sets or (), say)
    print_result(result.as_dict(), json, lambda: compare_table(result))


@models.command()
def score(
    as_of: Decision = None,
    model: Model = None,
    in_sample: Annotated[
        bool, typer.Option("--in-sample", help="Allow a decision the model was fitted on; its forecasts are marked.")
    ] = False,
    engine: EngineName = "local",
    address: Address = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Forecast every ticker for the session after a decision; a night the nightly job made is replayed as it was."""
    from pipelines.bundle import load_bundle
    from pipelines.decision import champion_of
    from pipelines.engine import open_engine
    from pipelines.instants import parse_decision, utc_now
    from pipelines.nightly.ledger import night_of
    from pipelines.nightly.members import as_of_night
    from pipelines.score import Ask
    from pipelines.score import score as job
    from pipelines.table import forecast_table

    workspace = open_here(sets)
    session = parse_decision(as_of)
    night = None if session is None else night_of(workspace, session)
    ask = Ask(session, utc_now() if night is None else night.recorded_by, in_sample=in_sample)
    name = model or (night.champion if night else None)
    if name is None and session is not None:
        name, present = champion_of(workspace, session)
        if present:
            say(f"There was no champion yet at the decision after {session}: scored with the present one, {name}.")
    bundle = load_bundle(workspace.runs, name)
    if night is not None:
        workspace = as_of_night(workspace, night)
    with open_engine(engine, address) as opened:
        result = job(workspace, bundle, ask, utc_now, opened)
    if result.in_sample:
        say("The model was fitted with labels that settled after this decision: these forecasts prove nothing.")
    if result.unpublished:
        say(f"Not published: {result.unpublished}")
    print_result(result.as_dict(), json, lambda: forecast_table(result))


@models.command("explain")
def explain_command(
    ticker: Annotated[str | None, typer.Argument(help="A ticker; by default the mean of all.")] = None,
    as_of: Decision = None,
    model: Model = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Show which days of its window a forecast hangs on; what a model looked at is not what caused a price."""
    from pipelines.bundle import load_bundle
    from pipelines.explain import explain, explained_table
    from pipelines.instants import parse_decision

    workspace = open_here(sets)
    session = parse_decision(as_of)
    result = explain(workspace, load_bundle(workspace.runs, model), ticker and ticker.upper(), session)
    print_result(result.as_dict(), json, lambda: explained_table(result))


@models.command()
def paths(
    ticker: str,
    as_of: Decision = None,
    paths: Annotated[int, typer.Option(min=1, max=100_000, help="How many futures are drawn.")] = 200,
    horizon: Annotated[int, typer.Option(min=1, max=250, help="Sessions ahead.")] = 5,
    temperature: Annotated[float, typer.Option(help="Divides the logits; 1 leaves the forecast as it is.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="The likeliest so many codes only.")] = None,
    top_p: Annotated[float | None, typer.Option(help="The fewest codes that hold this probability only.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="The likeliest code each time: one path.")] = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    model: Model = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Draw futures of one ticker from a price language model (price.kind = "tokens")."""
    from pipelines.bundle import load_bundle
    from pipelines.instants import parse_decision
    from pipelines.paths import Ask, draw_paths, outlook_table, parse_decoding

    workspace = open_here(sets)
    ask = Ask(paths, horizon, seed, parse_decoding(temperature, top_k, top_p, greedy))
    session = parse_decision(as_of)
    result = draw_paths(workspace, load_bundle(workspace.runs, model), ticker.upper(), session, ask)
    if result.in_sample:
        say("The model was fitted with labels that settled after this decision: these paths prove nothing.")
    print_result(result.as_dict(), json, lambda: outlook_table(result))


@models.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where the worlds are kept.")] = Path("tapewire-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Which simulated market.")] = 0,
    placebo: Annotated[bool, typer.Option("--placebo", help="A market whose news moves nothing.")] = False,
    json: Json = False,
) -> None:
    """Run the whole chain on a simulated market whose truth is known."""
    from pipelines.demo import run_demo
    from pipelines.table import demo_table

    result = run_demo(folder, seed, placebo, say)
    print_result(result.as_dict(), json, lambda: demo_table(result))
