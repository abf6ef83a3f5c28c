"""Units and sources of the demo panel's series, as `jaxfc.datasets` documents them."""

YAHOO = "Yahoo Finance"
MOODYS = "Moody's, through FRED"
FRENCH = "data library of K. R. French"
ACCOUNTS = "US national accounts (BEA), through FRED, vintage of December 2009"

UNITS = {
    "SP500": "log return, percent",
    "NASDAQ": "log return, percent",
    "VIX": "change, points",
    "WTI": "log return, percent",
    "MKT_RF": "return, percent",
    "SMB": "return, percent",
    "HML": "return, percent",
    "AAA": "change, percentage points",
    "BAA_AAA": "spread, percentage points",
    "CORE_CPI": "growth, percent",
    "GDP": "growth, percent",
    "CONSUMPTION": "growth, percent",
    "INVESTMENT": "growth, percent",
    "INCOME": "growth, percent",
    "UNEMPLOYMENT": "change, percentage points",
    "TBILL": "change, percentage points",
    "M1": "growth, percent",
}

SOURCES = {
    "SP500": f"S&P 500, {YAHOO}",
    "NASDAQ": f"NASDAQ Composite, {YAHOO}",
    "VIX": "CBOE volatility index, through FRED",
    "WTI": "WTI spot price, EIA, through FRED",
    "MKT_RF": f"market less bill, {FRENCH}",
    "SMB": f"small minus big, {FRENCH}",
    "HML": f"high minus low, {FRENCH}",
    "AAA": f"Aaa yield, {MOODYS}",
    "BAA_AAA": f"Baa less Aaa yield, {MOODYS}",
    "CORE_CPI": "consumer prices without food and energy, BLS, through FRED",
    "GDP": ACCOUNTS,
    "CONSUMPTION": ACCOUNTS,
    "INVESTMENT": ACCOUNTS,
    "INCOME": ACCOUNTS,
    "UNEMPLOYMENT": "BLS, through FRED, vintage of December 2009",
    "TBILL": "3-month bill, Federal Reserve, through FRED, vintage of December 2009",
    "M1": "Federal Reserve, through FRED, vintage of December 2009",
}
