"""The date of a day, without the standard library's clocks. Pure.

date_of(20_436)                  (2025, 12, 14)
"""

from __future__ import annotations


def date_of(days: int) -> tuple[int, int, int]:
    """Give year, month and day of a number of days since 1970-01-01.

    Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": a year that begins in March has its leap day last, so
    the days before a month do not depend on the year.
    """
    era, day_of_era = divmod(days + 719_468, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    return year_of_era + era * 400 + (month <= 2), month, day
