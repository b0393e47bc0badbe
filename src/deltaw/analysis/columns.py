"""The columns of every table of an analysis: name → what it holds, with unit and range."""

from deltaw.run.metrics import MEASURED

RANDOM = "random"  # the projection, or the right adapter, of Gaussian matrices

TWO = ["left", "right", "step_left", "step_right"]  # which two adapters a row is about

PAIR = {
    "left": "name of the left adapter",
    "right": "name of the right adapter",
    "step_left": "step of the left adapter; <NA> outside of a run",
    "step_right": "step of the right adapter; <NA> outside of a run",
    "layer": "layer, from 1; 0 for a module outside of the layers",
    "projection": "q, k, v, o, or the end of the module's name; of several towers, with the tower's name in front",
    "basis": "a name in `deltaw.analysis.bases.BASES`",
}

# A row for each cell (i, j) of each pair, site and basis.
PHI = PAIR | {
    "i": "number of leading directions of the left adapter, from 1",
    "j": "number of leading directions of the right adapter, from 1",
    "phi": "φ(i, j), in [0, 1]; NaN beyond a numerical rank",
    "null_mean": "mean of φ(i, j) between random subspaces, in [0, 1]; NaN beyond the width",
    "null_sd": "standard deviation of φ(i, j) between random subspaces; NaN beyond the width",
    "p_value": "probability that random subspaces reach phi; NaN with phi, and for i, j > 1 in a width below 16",
    "reason": "why phi is NaN; else None",
}  # in a table of cells also control: φ of the control pair, on average over the shadows; NaN without shadows

# A row for each pair, site and basis. A number is NaN where an adapter has no direction.
PAIRS = PAIR | {
    "width": "dimension of the space that the directions lie in",
    "rank_left": "numerical rank of the left adapter's matrix",
    "rank_right": "numerical rank of the right adapter's matrix",
    "phi_first": "φ(1, 1), in [0, 1]",
    "phi_row": "φ(1, rank_right), in [0, 1]",
    "phi_corner": "φ(rank_left, rank_right), in [0, 1]",
    "cos2": "cos²θ of the principal angles, falling, each in [0, 1]",
    "k_star": "number of directions shared beyond random subspaces; NaN where the reason says why",
    "k_star_cos2": "mean cos²θ of the directions that k_star counts, in [0, 1]; NaN where it counts none",
    "reason": "why φ or k_star is NaN; else None",
    "row_cosine": "mean cosine between the rows of the two A: near 1 after one start, near 0 after two",
    "A_left": "the first site where the left adapter has this A, often this one, as 'q of layer 1'",
    "A_right": "as A_left, for the right adapter. Means count rows with the same two A once",
    "full_rank": "whether ΔW of both is measured and has as many directions as A",
    "null_first": "mean of φ(1, 1) between random subspaces",
    "p_first": "probability that random subspaces reach phi_first",
    "null_row": "as null_first, for phi_row",
    "p_row": "as p_first, for phi_row",
    "null_corner": "as null_first, for phi_corner",
    "p_corner": "as p_first, for phi_corner; NaN for several directions in a width below 16",
}

# A row for each pair of adapters and site, where B was read: what adding their ΔW means.
MERGE = {name: words for name, words in PAIR.items() if name != "basis"} | {
    "norm_left": "‖ΔW‖_F of the left adapter",
    "norm_right": "‖ΔW‖_F of the right adapter",
    "norm_ratio": "norm_right / norm_left; NaN where the left ΔW is 0",
    "cosine": "⟨ΔW_left, ΔW_right⟩ / (norm_left · norm_right), in [−1, 1]; NaN where a ΔW is 0",
    "random_sd": "standard deviation of the cosine of random ΔW, whose mean is 0: 1/√(d_in d_out)",
    "rank_left": "(Σ σ²)² / Σ σ⁴ over the singular values σ of ΔW_left, from 1 to its rank; NaN where it is 0",
    "rank_right": "as rank_left, of ΔW_right",
    "overlap_input": "mean cos² between input directions of both, each with its share of ‖ΔW‖²; NaN where a ΔW is 0",
    "chance_input": "mean of overlap_input between random directions: 1/d_in",
    "sd_input": "its standard deviation",
    "overlap_output": "as overlap_input, for the output directions",
    "chance_output": "as chance_input: 1/d_out",
    "sd_output": "as sd_input",
    "effect_on_left": "size of what right does to the inputs that left reads, left's own being 1; NaN where left is 0",
    "effect_on_right": "size of what left does to the inputs that right reads, right's own being 1",
}

# A row for each adapter, site and basis. X is the matrix whose directions are compared: A, A − A₀ or ΔW.
SITES = {
    "arm": "name of the adapter",
    "step": "its step; <NA> outside of a run",
    "layer": PAIR["layer"],
    "projection": PAIR["projection"],
    "module": "the module's name in the base",
    "basis": PAIR["basis"],
    "d_in": "width of the layer's input",
    "d_out": "width of the layer's output",
    "rank": "LoRA's rank",
    "numerical_rank": "number of singular values of X above rounding",
    "scale": "factor of B A in ΔW",
    "singular_values": "singular values of X above rounding, falling",
    "norm": "‖X‖_F",
    "stable_rank": "see `Spectrum`",
    "entropy_rank": "see `Spectrum`",
    "energy_rank": "see `Spectrum`",
    "gaps": "see `Spectrum`",
    "moved": "‖A − A₀‖_F / ‖A₀‖_F; NaN where A₀ is not known or 0",
    "same_A": "the first site of the adapter with this A, often this one, as 'q of layer 1'",
    "zero": "whether ΔW is 0",
}

# A row for each two seeds, site, basis and measure. Every value is a mean over the numbers of the shadows, minus what
# random subspaces give; NaN without shadows, and where an adapter has no direction.
EXCESS = {
    "seed_left": "seed of left; <NA> outside of a run",
    "seed_right": "seed of right: another one than left's, if there are two; <NA> outside of a run",
    "layer": PAIR["layer"],
    "projection": PAIR["projection"],
    "basis": PAIR["basis"],
    "measure": "first: φ(1, 1); row: φ(1, rank of right); corner: φ of the whole spans; k_star: directions shared",
    "pair": "left with right",
    "control": "the control pair: left's shadow with right's shadow",
    "left_shadow": "left's shadow with right",
    "right_shadow": "left with right's shadow",
    "excess": "pair minus control",
    "other_seed": "two seeds of left's settings, and two of right's, on average over all seeds; NaN with one seed",
}

# A row for each arm of the runs that the adapters come from.
LOSSES = {
    "arm": "name of the arm, behind its run's name where two runs have an arm of this name",
    "control": "how the arm's data is altered; None for the task itself",
    "rank": "LoRA's rank",
    "seed": "seed of the arm",
    "lr": "peak learning rate",
    "variant": "alpha or scaling unlike the run's, and patterns; both alpha and scaling where runs differ; '' for none",
    "unit": "what a loss is a mean over: token or row",
    "start": "validation loss before the first step, in nats per unit",
    "end": "validation loss at the last validation up to the adapter's step, in nats per unit; NaN after a divergence",
    "end_se": "standard error of end over the validation examples, or their groups; NaN where their losses are unknown",
    "gain": "start − end",
    "gain_se": "standard error of gain over the same, each example paired with itself; NaN as end_se",
    "share": "a control's gain in loss divided by the gain of the arm that learned the task, all else equal; else NaN",
} | {name: f"{words} at the same validation as end" for name, words in MEASURED.items()}

# A row for each arm at one site, against the frozen weight W.
AMPLIFICATION = {
    "arm": SITES["arm"],
    "step": SITES["step"],
    "layer": PAIR["layer"],
    "projection": PAIR["projection"],
    "rank": "LoRA's rank",
} | dict.fromkeys(
    ("norm_W", "norm_update", "by_update", "by_W", "by_random", "by_random_closed", "factor"), "see `Amplification`"
)
