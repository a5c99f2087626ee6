"""One of several processes that fill a cache: python cache_rank.py FOLDER RANK RANKS."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import frostline.torch as ft
from frostline.features import writing
from only_torch.cache.cached import Numbered, line

if __name__ == "__main__":
    writing.MOST_ROWS = 8
    ft.FeatureCache(sys.argv[1], line()).fill(Numbered(60), batch_size=4, rank=int(sys.argv[2]), ranks=int(sys.argv[3]))
