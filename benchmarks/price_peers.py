"""Training steps per CPU-second of each price encoder against neuralforecast's model of the same name.

    python benchmarks/price_peers.py [KIND ...] [--rounds 3] [--steps 6] [--dropout 0.1] [--features 10]

neuralforecast brings its own versions of core packages, so it lives in an environment of its own, `.bench-peers/`,
which this script makes if it is not there (with the same torch). Each side is one process of one thread that stays
up; they take turns, kind by kind, and never run at once. Compared are CPU seconds (`process_time`); wall time is there
as well. What is timed on both sides: zero_grad, forward, mean absolute error, backward and a fused AdamW step on
ready tensors, in training mode with dropout. No data loading, and nothing of Lightning.

Lookback 60, width 64, 2 layers, 4 heads, feed-forward nets of 128, batch 512, forecasts of one step. Ours is the
encoder and a linear head. Where the two are not the same:
- transformer, informer, autoformer: neuralforecast's have a decoder, which cannot be left out (one layer, over 30
  sessions and the forecast); they take other features as "known in the future". `encoder` is their encoder alone with
  its embedding and a linear head on the last token: no more work than ours is asked for.
- patchtst, dlinear: theirs read one series. Ours reads all features, so theirs gets a batch of as many times 512.
- itransformer: features are theirs as series, all of which it forecasts; that is a linear map of 64 each.
- tcn: theirs has single convolutions, here twice as many as ours has blocks of two, with the same dilations.
- lstm, gru, mlp: the same; theirs has a linear decoder, as ours.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

ENVIRONMENT = Path(__file__).resolve().parent.parent / ".bench-peers"
NEURALFORECAST = "neuralforecast==3.3.0"
LOOKBACK, WIDTH, LAYERS, HEADS, BATCH = 60, 64, 2, 4, 512
TARGETS = {"lstm": 2, "transformer": 4, "informer": 2, "autoformer": 2, "patchtst": 2}
DECODERS = {"transformer": "VanillaTransformer", "informer": "Informer", "autoformer": "Autoformer"}
KINDS = ["lstm", "gru", *DECODERS, "patchtst", "itransformer", "tcn", "dlinear", "mlp"]

Loss = Callable[[], torch.Tensor]


def main() -> None:
    options = parse()
    if options.side:
        serve(options)
        return
    peers = environment()
    ours, theirs = worker(sys.executable, "ours"), worker(peers, "peer")
    print(
        f"torch {torch.__version__}, {NEURALFORECAST}, batch {BATCH}, lookback {LOOKBACK}, {options.features} features"
    )
    for kind in options.kinds or KINDS:
        rivals = [kind, f"{kind} encoder"] if kind in DECODERS else [kind]
        report(
            kind, rivals, [[ask(ours, kind), *(ask(theirs, rival) for rival in rivals)] for _ in range(options.rounds)]
        )
    for process in (ours, theirs):
        process.stdin.close()
        process.wait()


def report(kind: str, rivals: list[str], rounds: list[list[dict[str, float]]]) -> None:
    """A line for each rival: our steps per second, theirs, and the median of the rounds' ratios."""
    for place, rival in enumerate(rivals, start=1):
        figures = []
        for clock in ("cpu", "wall"):
            mine, other = (statistics.median(each[at][clock] for each in rounds) for at in (0, place))
            ratio = statistics.median(each[0][clock] / each[place][clock] for each in rounds)
            figures.append(f"{clock} {mine:6.2f} : {other:6.2f} steps/s = {ratio:5.2f}x")
        target = f"   target {TARGETS[kind]}x" if rival == kind and kind in TARGETS else ""
        print(f"{rival:20} {'   '.join(figures)}{target}", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; all if none is named")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="timed steps a round, after two that are not")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--features", type=int, default=10)
    parser.add_argument("--side", choices=["ours", "peer"], help=argparse.SUPPRESS)
    return parser.parse_args()


def environment() -> str:
    """The interpreter of neuralforecast's environment, which is made and filled if it is not there."""
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / ".complete").exists():
        print(f"making {ENVIRONMENT} with {NEURALFORECAST}", flush=True)
        version = torch.__version__.partition("+")[0]
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", NEURALFORECAST, f"torch=={version}"], check=True)
        (ENVIRONMENT / ".complete").touch()
    return str(python)


def worker(python: str, side: str) -> Any:
    """A process of that side, up and waiting. Its arguments are this process's own."""
    single = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    command = [python, str(Path(__file__).resolve()), *sys.argv[1:], "--side", side]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=os.environ | single)


def ask(process: Any, kind: str) -> dict[str, float]:
    """Steps per second of a kind, by clock. Other lines that a library prints are passed over."""
    print(kind, file=process.stdin, flush=True)
    for line in process.stdout:
        if line.startswith("{"):
            return dict(json.loads(line))
    raise SystemExit(f"{kind}: the process that measured it ended")


def serve(options: argparse.Namespace) -> None:
    """Measure each kind that comes in on stdin and answer with a line of JSON."""
    torch.set_num_threads(1)
    prepare = our_step if options.side == "ours" else peer_step
    for line in sys.stdin:
        torch.manual_seed(0)
        module, loss = prepare(line.strip(), options)
        print(json.dumps(speed(module.train(), loss, options.steps)), flush=True)


def speed(module: nn.Module, loss: Loss, steps: int) -> dict[str, float]:
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-3, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    for _ in range(2):
        step()
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(steps):
        step()
    return {"cpu": steps / (time.process_time() - cpu), "wall": steps / (time.perf_counter() - wall)}


def our_step(kind: str, options: argparse.Namespace) -> tuple[nn.Module, Loss]:
    from pydantic import TypeAdapter

    from encoders.price import PriceEncoderConfig

    keys = {"kind": kind, "lookback": LOOKBACK, "width": WIDTH, "dropout": options.dropout}
    layers = {"layers": 1 if kind == "dlinear" else LAYERS}
    config: Any = TypeAdapter(PriceEncoderConfig).validate_python(keys | layers)
    encoder, head = config.build(options.features), nn.Linear(WIDTH, 1)
    price_BLF, target_B1 = torch.randn(BATCH, LOOKBACK, options.features), torch.randn(BATCH, 1)
    mask_BL = torch.ones(BATCH, LOOKBACK, dtype=torch.bool)
    return nn.ModuleList(
        [encoder, head]
    ), lambda: (head(encoder(price_BLF, mask_BL).pooled_BD) - target_B1).abs().mean()


def peer_step(name: str, options: argparse.Namespace) -> tuple[nn.Module, Loss]:
    kind, _, part = name.partition(" ")
    model = peer(kind, options)
    price_BLF = torch.randn(BATCH, LOOKBACK, options.features)
    batch = peer_batch(kind, price_BLF)
    if part == "encoder":
        return encoder_alone(model, batch)
    width = options.features if kind == "itransformer" else 1
    target = torch.randn(len(batch["insample_y"]), 1, width)
    return model, lambda: model.loss(y=target, y_hat=model(batch))


def peer(kind: str, options: argparse.Namespace) -> Any:
    """neuralforecast's model of that kind, as near to ours as its arguments allow."""
    warnings.simplefilter("ignore")
    from neuralforecast import models

    common: dict[str, Any] = {"h": 1, "input_size": LOOKBACK}
    others = [f"x{number}" for number in range(1, options.features)] or None
    attention = {"hidden_size": WIDTH, "dropout": options.dropout}
    if kind in DECODERS:
        keys = {"encoder_layers": LAYERS, "decoder_layers": 1, "n_head": HEADS, "conv_hidden_size": 2 * WIDTH}
        if kind != "transformer":
            keys["factor"] = {"informer": 5, "autoformer": 3}[kind]
        return getattr(models, DECODERS[kind])(**common, **attention, **keys, futr_exog_list=others)
    if kind == "patchtst":
        keys = {"encoder_layers": LAYERS, "n_heads": HEADS, "linear_hidden_size": 2 * WIDTH}
        return models.PatchTST(**common, **attention, **keys, patch_len=16, stride=8)
    if kind == "itransformer":
        keys = {"e_layers": LAYERS, "n_heads": HEADS, "d_ff": 2 * WIDTH, "n_series": options.features}
        return models.iTransformer(**common, **attention, **keys)
    if kind in ("lstm", "gru"):
        keys = {"encoder_n_layers": LAYERS, "encoder_hidden_size": WIDTH, "decoder_layers": 1}
        build = getattr(models, kind.upper())
        return build(**common, **keys, encoder_dropout=options.dropout, hist_exog_list=others)
    if kind == "tcn":
        keys = {"encoder_hidden_size": WIDTH, "kernel_size": 3, "decoder_layers": 1}
        return models.TCN(**common, **keys, dilations=[1, 1, 2, 2, 4, 4, 8, 8] * LAYERS, hist_exog_list=others)
    if kind == "mlp":
        return models.MLP(**common, num_layers=LAYERS, hidden_size=WIDTH, hist_exog_list=others)
    return models.DLinear(**common)


def peer_batch(kind: str, price_BLF: torch.Tensor) -> dict[str, Any]:
    """The same windows as neuralforecast hands them to its models."""
    nothing = {"futr_exog": None, "hist_exog": None, "stat_exog": None}
    if kind == "itransformer":
        return {**nothing, "insample_y": price_BLF}
    if kind in ("patchtst", "dlinear"):
        return {**nothing, "insample_y": price_BLF.transpose(1, 2).reshape(-1, LOOKBACK, 1)}
    first, others = price_BLF[..., :1], price_BLF[..., 1:]
    if kind in DECODERS:
        return {**nothing, "insample_y": first, "futr_exog": nn.functional.pad(others, (0, 0, 0, 1))}
    return {**nothing, "insample_y": first, "hist_exog": others}


def encoder_alone(model: Any, batch: dict[str, Any]) -> tuple[nn.Module, Loss]:
    """Their embedding and encoder, and a linear head on the last token that comes out."""
    head, target_B1 = nn.Linear(WIDTH, 1), torch.randn(BATCH, 1)
    known = batch["futr_exog"][:, :LOOKBACK] if model.futr_exog_size else None

    def loss() -> torch.Tensor:
        tokens, _ = model.encoder(model.enc_embedding(batch["insample_y"], known), attn_mask=None)
        return (head(tokens[:, -1]) - target_B1).abs().mean()

    return nn.ModuleList([model.enc_embedding, model.encoder, head]), loss


if __name__ == "__main__":
    main()
