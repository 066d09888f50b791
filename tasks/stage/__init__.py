"""The stage machinery: what makes a function a cached stage, and what every stage may use."""
