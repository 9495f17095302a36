//! The gauge of queued signature checks, after their requests are dropped.

use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::thread::sleep;
use std::time::Duration;

use metrics::{
    Counter, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

use crate::metrics::SIGNATURE_QUEUE;
use crate::testing::TestAuthority;
use crate::verify::SignatureLimit;

/// The value of the gauge.
#[derive(Clone, Default)]
struct Queue(Arc<Mutex<f64>>);

impl Queue {
    fn len(&self) -> f64 {
        *self.0.lock().unwrap()
    }
}

impl GaugeFn for Queue {
    fn increment(&self, value: f64) {
        *self.0.lock().unwrap() += value;
    }

    fn decrement(&self, value: f64) {
        *self.0.lock().unwrap() -= value;
    }

    fn set(&self, value: f64) {
        *self.0.lock().unwrap() = value;
    }
}

impl Recorder for Queue {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match key.name() == SIGNATURE_QUEUE {
            true => Gauge::from_arc(Arc::new(self.clone())),
            false => Gauge::noop(),
        }
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn dropped_requests_leave_the_gauge_of_the_queue_at_zero() {
    let queue = Queue::default();
    metrics::with_local_recorder(&queue, || {
        let authority = TestAuthority::offline();
        let limit = Arc::new(SignatureLimit::new(1, 1));
        let verifier = authority.verifier().with_signature_limit(Arc::clone(&limit));
        let permit = limit.try_acquire().unwrap();
        let (good, forged) = (authority.token().sign(), authority.token().forged().sign());
        let token = |number| if number % 2 == 0 { &good } else { &forged };
        let mut waiting: Vec<_> =
            (0..100).map(|number| Box::pin(verifier.verify(token(number)))).collect();
        let mut cx = Context::from_waker(Waker::noop());
        for verify in &mut waiting {
            assert!(verify.as_mut().poll(&mut cx).is_pending());
        }
        assert_eq!(queue.len(), 100.0);
        // A dropped request keeps its slot until the thread takes it out of the queue.
        waiting.truncate(50);
        drop(permit);
        let is_empty = (0..1000).any(|_| {
            sleep(Duration::from_millis(10));
            queue.len() == 0.0
        });
        assert!(is_empty, "{}", queue.len());
        drop(waiting);
        assert_eq!(queue.len(), 0.0);
    });
}
