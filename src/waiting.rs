//! [`Waiting`]: counts what waits.

/// Counts one in a gauge until it is dropped. Without feature `metrics` it counts nothing.
#[derive(Default)]
pub(crate) struct Waiting {
    #[cfg(feature = "metrics")]
    gauge: Option<metrics::Gauge>,
}

#[cfg(feature = "metrics")]
impl Waiting {
    pub(crate) fn new(gauge: metrics::Gauge) -> Self {
        gauge.increment(1.0);
        Self { gauge: Some(gauge) }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        #[cfg(feature = "metrics")]
        if let Some(gauge) = self.gauge.take() {
            gauge.decrement(1.0);
        }
    }
}
