"""`vl2v-vendor prices`: the price list, in immutable versions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from vl2v_contract.identity import Modality
from vl2v_vendor.cli.console import (
    DatabaseOption,
    JsonOption,
    RequestIdOption,
    open_books,
    print_line,
    show_items,
    show_json,
    show_time,
)

app = typer.Typer(help="Prices per query, in millionths of the currency.", no_args_is_help=True)


@app.command("set")
def set_price(
    model: Annotated[str, typer.Argument(help="The model's id.")],
    modality: Annotated[Modality, typer.Argument(help="image or text.")],
    unit_price_micro: Annotated[int, typer.Argument(help="Millionths of the currency per query.")],
    currency: Annotated[str | None, typer.Option(help="Three letters; default from the settings.")] = None,
    request_id: RequestIdOption = None,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Set a price; requests that were quoted the old one are refused, not billed."""
    with open_books(database, makes=True) as books:
        price = books.accounts.set_price(
            model, modality, unit_price_micro, currency or books.settings.currency, request_id=request_id
        )
    if as_json:
        show_json(asdict(price))
    else:
        print_line(f"price {price.id}: {price.unit_price_micro} micro-{price.currency} per {price.modality} of {model}")


@app.command("list")
def list_prices(
    model: Annotated[str | None, typer.Option(help="Only this model's.")] = None,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Show every version of every price, oldest first."""
    with open_books(database) as books:
        prices = books.accounts.prices(model)
    show_items(
        prices,
        {
            "PRICE": "id",
            "MODEL": "model_id",
            "MODALITY": "modality",
            "MICRO PER QUERY": "unit_price_micro",
            "CURRENCY": "currency",
            "VALID FROM": lambda price: show_time(price.valid_from),
        },
        as_json=as_json,
    )
