"""jaxfc: differentiable forecasting of panels of financial and macroeconomic time series."""
