"""Real panels from end to end: FRED-MD vintages load, transform and fit."""

import numpy as np
import pytest

import jaxfc
from jaxfc.results import is_okay


@pytest.mark.parametrize("vintage", ["2016-02", "2020-06"])
def test_fred_md_vintages_load_and_fit(shared_data, vintage):
    frame, codes = jaxfc.read_fredmd(shared_data / "fredmd_vintages" / f"{vintage}.csv.gz")
    panel = jaxfc.transform(jaxfc.Panel.from_frame(frame), codes).window("1960-01-31", None)
    assert panel.num_series in (128, 135) and panel.num_times > 600
    assert 0.9 < panel.observed.mean() < 1.0
    # One shape for both vintages, so that they share a compiled program.
    common = panel.select(panel.names[:100]).window(0, 600)
    model = jaxfc.DynamicFactorModel(3, 1, method=jaxfc.EM(rtol=1e-4))
    fitted = model.fit(common)
    assert bool(is_okay(fitted.result))
    forecast = fitted.forecast(12)
    assert np.isfinite(forecast.mean).all() and (forecast.std > 0).all()
    labelled = common.label(forecast)
    assert list(labelled.columns) == list(common.names) and len(labelled) == 12
    # The first factors of real activity explain industrial production.
    share = 1 - fitted.parameters.variances[common.names.index("INDPRO")]
    assert share > 0.4
