"""The papers' figures, computed from stage tables, published numbers, checkpoints and images.

`python -m drn_jax.figures` (`__main__`, `program`) writes each to a file and all to a page.

`levels`         the rows of a stage table as the DRN paper counts them
`architecture`   the networks as charts (DRN, Figs. 1 and 5)
`fields`         receptive fields (Context, Fig. 1)
`activations`    class maps, levels, stems (DRN, Figs. 3, 6, 7), of what `answers` computes
`gridding`       impulse responses (DRN, Fig. 4), and how much of a grid every level has
`effective`      effective receptive fields
`prices`         error against parameters and multiply-adds
`segmentations`  segmentations beside the truth (DRN, Fig. 8)
`runs`           the networks and images that figures are computed from
`charts`         what figures have in common
`page`           the page
"""
