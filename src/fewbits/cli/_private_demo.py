import typer
def demo() -> None:
    """x"""
