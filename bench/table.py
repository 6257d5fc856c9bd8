"""How results are shown."""


class Table:
    """Sluice beside a peer, printed as Markdown."""

    def __init__(self, title, peer="Benthos"):
        self.title, self.peer, self.rows, self.notes = title, peer, [], []

    def row(self, what, sluice, peer=None, *, unit="", less=False, compare=True, target=None, ratio=None):
        """less: the smaller figure is the better one; the ratio always says how many times better Sluice is. Figures that are texts come with their ratio, or have none."""
        if compare and peer and sluice and not isinstance(sluice, str):
            ratio = peer / sluice if less else sluice / peer
        self.rows.append(
            {"what": what, "sluice": sluice, "peer": peer, "unit": unit, "ratio": ratio, "target": target}
        )

    def note(self, text):
        self.notes.append(text)

    def show(self):
        def figure(value, unit):
            if value is None:
                return ""
            if isinstance(value, str):
                return value
            return f"{value:,.0f}{unit}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}{unit}"

        print(f"\n{self.title}\n\n| what | Sluice | {self.peer} | ratio | target |\n|---|---|---|---|---|")
        for r in self.rows:
            ratio = r["ratio"] or ""
            if ratio and not isinstance(ratio, str):
                ratio = f"{ratio:.{1 if ratio >= 2 else 2}f} x"
            print(
                f"| {r['what']} | {figure(r['sluice'], r['unit'])} | {figure(r['peer'], r['unit'])} | {ratio} | {r['target'] or ''} |"
            )
        for note in self.notes:
            print(f"\n{note}")
