"""x"""


def plot_overlay_pngs_entry():
    pass
