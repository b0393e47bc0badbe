"""The colours of φ, without matplotlib."""

# Lightness rises evenly, so that a figure can also be read in grey.
PHI = ["#0a0618", "#571c52", "#c81d51", "#f3835a", "#fbeadc"]
# Blue below 0 and orange above, which the colour-blind tell apart.
EXCESS = ["#08306b", "#2f79b8", "#9fc8e6", "#fafafa", "#f7b26a", "#d3620b", "#6b2703"]
