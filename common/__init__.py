"""What both sides share; knows neither side."""
