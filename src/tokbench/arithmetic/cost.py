"""Cost and carbon of tokens in closed form: hardware by the hour, electricity with the idle hours, CO2 of the grid.

It holds no price: every amount is an argument. The model of use is one machine that does this work for a share of all
hours, its utilisation, and stands idle and switched on for the rest.
"""

from __future__ import annotations

SECONDS_PER_HOUR = 3600.0
HOURS_PER_YEAR = 8760.0
JOULES_PER_KWH = 3.6e6


def _refuse(is_wrong: bool, message: str) -> None:
    if is_wrong:
        raise ValueError(message)


def _check_use(tokens_per_s: float, utilisation: float) -> None:
    _refuse(tokens_per_s <= 0, f"a machine that makes {tokens_per_s} tokens/s has no price per token")
    _refuse(not 0 < utilisation <= 1, f"a utilisation is a share above 0 and up to 1, not {utilisation}")


def purchase_usd_per_hour(purchase_usd: float, lifetime_years: float, overhead: float = 0.0) -> float:
    """A purchase price spread evenly over the hours of a lifetime, used or not.

    Formula: purchase_usd * (1 + overhead) / (lifetime_years * 8760). No interest and no resale value.

    Raises:
        ValueError: a price or lifetime that is not above 0, or a negative overhead.
    """
    _refuse(purchase_usd <= 0 or lifetime_years <= 0, "a price and a lifetime are above 0")
    _refuse(overhead < 0, f"an overhead of {overhead} would lower the price")
    return purchase_usd * (1 + overhead) / (lifetime_years * HOURS_PER_YEAR)


def hardware_usd_per_token(usd_per_hour: float, tokens_per_s: float, utilisation: float) -> float:
    """What the machine costs for each output token of all streams, idle hours paid by the tokens of the busy ones.

    Formula: usd_per_hour / 3600 / (tokens_per_s * utilisation).

    Raises:
        ValueError: no tokens, or a utilisation outside 0 to 1.
    """
    _check_use(tokens_per_s, utilisation)
    return usd_per_hour / SECONDS_PER_HOUR / (tokens_per_s * utilisation)


def request_j_per_output_token(decode_j: float, prefill_j: float, prompt_tokens: int, output_tokens: int) -> float:
    """Joules of a whole request for each of its output tokens; the prefill yields the first of them.

    `decode_j` for each output token after the first, `prefill_j` for each prompt token.
    Formula: (decode_j * (output_tokens - 1) + prefill_j * prompt_tokens) / output_tokens.

    Raises:
        ValueError: a request without a prompt or an output token.
    """
    _refuse(prompt_tokens < 1 or output_tokens < 1, "a request has a prompt token and an output token or more")
    return (decode_j * (output_tokens - 1) + prefill_j * prompt_tokens) / output_tokens


def metered_j_per_token(busy_j: float, idle_w: float, tokens_per_s: float, utilisation: float) -> float:
    """Joules of the metered part for each output token, those of the idle hours spread over the tokens.

    In T seconds the machine makes tokens_per_s * utilisation * T tokens at `busy_j` each and idles for
    (1 - utilisation) * T seconds at `idle_w`.
    Formula: busy_j + idle_w * (1 - utilisation) / utilisation / tokens_per_s.

    Raises:
        ValueError: no tokens, or a utilisation outside 0 to 1.
    """
    _check_use(tokens_per_s, utilisation)
    return busy_j + idle_w * (1 - utilisation) / utilisation / tokens_per_s


def grid_kwh(metered_j: float, pue: float, host_factor: float) -> float:
    """Kilowatt-hours at the building's meter for joules of a part of a machine.

    Formula: metered_j * host_factor * pue / 3.6e6. `host_factor`: the whole machine over the metered part, 1 where the
    whole machine was metered. One factor for busy and idle: at idle the host's share is larger than under load.

    Raises:
        ValueError: a factor below 1.
    """
    _refuse(pue < 1 or host_factor < 1, f"a whole takes no less than its part: pue {pue}, host factor {host_factor}")
    return metered_j * host_factor * pue / JOULES_PER_KWH
