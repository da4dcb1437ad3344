"""`tapewire init`: a file with every key, its default and a comment. Imports nothing heavy."""

from pathlib import Path

from data.errors import ConfigError

FILE = "tapewire.toml"

TEMPLATE = """\
# Tapewire workspace. Override any key for one run with --set, such as --set price.kind=transformer.

calendar = "XNYS"        # exchange_calendars code: XNYS, XLON, XTKS, 24/7, ...
decision = "nightly"     # when a forecast is made: close | nightly (22:00 on the eve of the target session) | pre-open
target = "close_close"   # log total return to forecast: close_close | overnight | open_close
seeds = [0, 1, 2]        # ablate trains every variant once per seed; train uses the first
watchlist = []           # tickers to train on and score, such as ["AAPL", "MSFT"]; empty: all in the lake
universe = ""            # CSV of ticker,from,to: who belonged when, delisted names included; "": the watchlist, always

[text]
kind = "encoder"         # encoder | causal-lm
encoder = "finbert"      # finbert | minilm (extra `offline`) | other presets | a hub id | a folder, such as text/NAME
# revision = "main"      # hub commit, tag or branch; finbert is pinned
input = "title"          # what of a headline is read: title | title+summary
pooling = "mean"         # mean | cls | max | sentiment (mean, and the classifier's verdict); causal-lm: last | mean
max_tokens = 64          # of a window; a longer text is cut, or read in several
chunks = 1               # windows of a longer text that are read
overlap = 0              # tokens that neighbouring windows share
# adapter = "OWNER/NAME"  # causal-lm only: hub id or folder of a LoRA adapter
# adapter_revision = "main"  # causal-lm only
# sentiment = "none"     # causal-lm only: none | beside (the embedding) | only: probabilities of the labels
# labels = ["positive", "negative", "neutral"]  # causal-lm only: the words, in the order of their probabilities
# prompt = "News: {text}\\nSentiment: "  # causal-lm only: what they answer; left out: FinGPT's own
# bits = 16              # causal-lm only: of a weight, 32 | 16 | 8 | 4; below 16: `pip install 'tapewire[quantised]'`

[price]
kind = "lstm"            # lstm | gru | tcn | dlinear | mlp | tokens (a language model of bars)
#                          | transformer | informer | autoformer | patchtst | itransformer
lookback = 60            # sessions in a window
width = 64               # width of the model
layers = 1               # stacked
dropout = 0.1            # of the price encoder
# bidirectional = false  # lstm, gru: read from both ends, half of the width each
# pooling = "last"       # lstm, gru: last | attention
# heads = 4              # kinds that attend
# positions = "sinusoidal"  # transformer: sinusoidal | learned | rotary
# causal = false         # transformer: a session sees only earlier ones
# norm = "layer"         # transformer: layer | rms
# factor = 5             # informer, autoformer (3): how many queries or delays count, times the log of the lookback
# moving_average = 25    # autoformer: sessions of the trend, odd
# patch_length = 16      # patchtst: sessions of a patch
# stride = 8             # patchtst: sessions between their starts
# instance_norm = false  # patchtst, itransformer: each window normalised by itself
# kernel = 3             # tcn: sessions a convolution reads; dlinear: 25, sessions of the trend
# weight_norm = true     # tcn
# steps = 8              # dlinear: sums over time of each feature
# stack = "lstm"         # tokens: lstm | transformer
# quantiser = "quantiles"  # tokens: quantiles | rvq
# bins = 16              # tokens: codes of the return, or of each stage of rvq
# shape_bins = 4         # tokens: codes of each other variable of a bar; 1: the return alone
# stages = 2             # tokens: of rvq
# pretrain = 20          # tokens: passes over the training bars before the forecast is trained

[fusion]
kind = "gated"           # concat | gated | cross_attention | price_only | text_only
dropout = 0.3            # of everything that reads text

[train]
epochs = 10              # at most; early stopping may end sooner
batch_size = 512         # samples, whole sessions together
accumulate = 1           # batches per optimiser step
learning_rate = 0.002    # peak, after warm-up, then cosine
weight_decay = 0.01      # of AdamW
warmup_share = 0.1       # share of all steps
clip_norm = 1.0          # of the gradient
average = 0.997          # decay of the moving average of the weights, which is what is kept; 0 for none
patience = 3             # epochs without a better validation loss
precision = "auto"       # auto (bf16 on a GPU, else no) | no | bf16 | fp16

[split]
folds = 1                # walk-forward folds; not used where the three dates below are given
# train_start = 2014-01-01  # optional: nothing before it is trained on
# train_end = 2015-08-01    # target sessions before it train,
# valid_end = 2015-10-01    # from there on to here validate,
# test_end = 2016-01-01     # and from there on to here test
valid_share = 0.15       # of all sessions, where the dates are not given
test_share = 0.25        # the newest sessions, split among the folds
embargo = 1              # sessions left out before each boundary

[news]
window = 5               # sessions of headlines a forecast sees, its own included
per_session = 8          # newest headlines kept per ticker and session

confidence = 0.8         # least of a link from a title to a ticker; see `tapewire link explain "HEADLINE"`
aliases = []             # files of company names: SEC's company_tickers.json, or CSV (name,ticker,valid_from,valid_to)

[news.fetch]
contact = ""             # an address for the User-Agent; SEC EDGAR refuses requests without one
timeout = 10             # seconds to connect, and to wait for bytes
deadline = 30            # seconds for a whole fetch, its redirects and retries included
max_bytes = 10485760     # of a document, unpacked
max_redirects = 5        # each hop is checked like the first address
per_host_connections = 4  # at once
per_host_rate = 10       # requests a second
concurrency = 64         # fetches at once
attempts = 3             # where a server fails
backoff = 0.5            # seconds before the second attempt, doubled from then on, with jitter

[tape]
source = "yahoo"         # yahoo | stooq | tiingo: where `tapewire ingest --prices` gets the watchlist's bars
start = 2000-01-01       # nothing before it is asked for
overlap = 10             # stored sessions asked for again each time, to see what was restated
settle = 20              # minutes after a close before its bar is believed
workers = 4              # tickers asked for at once
rate = 2                 # requests a second, all workers together; a 429 slows them all
backoff = 1              # seconds before the second attempt, doubled from then on, with jitter
# key_env = "TIINGO_API_KEY"  # the environment variable that holds the vendor's key,
# key_file = "tiingo.key"     # or the file; tiingo needs one, stooq may want one
# calendars = { ".XC" = "XLON", "BTC-EUR" = "24/7" }  # of suffixes and tickers; Yahoo's suffixes are known

[nightly]
ingest = ["news", "prices"]  # what `tapewire nightly` gets before it scores; [] where other jobs do it
coverage = 0.95          # share of the universe, above 0, that must be scored before forecasts are published
catch_up = 5             # nights that one run does at most, the newest, tonight's included: 1 makes up for none
healthcheck = ""         # address of a check at healthchecks.io or the like: asked at the start and the end
webhook = ""             # address that gets a JSON document of every night that was less than full

# Feeds that `tapewire ingest --news` reads. `tapewire feeds list` prints those known by name.
# [[news.feeds]]
# name = "yahoo"         # a known one: url and quirks are filled in
# [[news.feeds]]
# name = "my-wire"
# url = "https://..."    # may hold {ticker}: read once for each ticker of the watchlist
# default_tz = "America/New_York"  # zone of stamps that carry none
# allow_private = false  # loopback and private addresses, for a feed of your own
# tickers = []           # every item is about these
# strip_prefixes = []    # cut from the start of titles
# strip_after = " - "    # the last one and what follows it is cut from titles
"""


def init_workspace(folder: Path) -> Path:
    """Write a commented `tapewire.toml` into `folder`; ConfigError where one is there already."""
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE)
    except FileExistsError:
        raise ConfigError(f"{path}: there is one already; it was left as it is. Choose another folder.") from None
    except OSError as error:
        raise ConfigError(f"{path}: expected a folder that can be written to, found: {error}") from error
    return path
