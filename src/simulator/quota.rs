//! Limits per minute, enforced as providers do: with buckets that refill all the time.

/// The limits; `None` = none.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limits {
    /// Requests per minute.
    pub requests: Option<f64>,
    /// Tokens per minute, of prompts and answers.
    pub tokens: Option<f64>,
    /// How many seconds' worth may come at once.
    pub burst: f64,
}

/// The state of one limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// The limit per minute.
    pub per_minute: f64,
    /// What it holds when it is full.
    pub capacity: f64,
    /// What it holds.
    pub level: f64,
    at: f64,
}

impl Bucket {
    fn new(per_minute: f64, burst: f64) -> Self {
        let capacity = (per_minute / 60.0 * burst).max(1.0);
        Self { per_minute, capacity, level: capacity, at: 0.0 }
    }

    fn refill(&mut self, now: f64) {
        self.level = (self.level + (now - self.at).max(0.0) * self.per_minute / 60.0).min(self.capacity);
        self.at = now;
    }

    /// Seconds until it holds `amount`; 0: it does. More than it can ever hold passes when it is full.
    fn wait_for(&self, amount: f64) -> f64 {
        ((amount.min(self.capacity) - self.level) * 60.0 / self.per_minute).max(0.0)
    }

    /// Seconds until it is full.
    pub fn until_full(&self) -> f64 {
        self.wait_for(self.capacity)
    }
}

/// Both limits of the server.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Quota {
    /// Requests.
    pub requests: Option<Bucket>,
    /// Tokens.
    pub tokens: Option<Bucket>,
}

/// A request that came too early.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TooEarly {
    /// Which limit.
    pub limit: &'static str,
    /// Come back after so many seconds.
    pub wait: f64,
}

impl Quota {
    /// Full buckets.
    pub fn new(limits: &Limits) -> Self {
        let bucket = |limit: Option<f64>| limit.map(|per_minute| Bucket::new(per_minute, limits.burst));
        Self { requests: bucket(limits.requests), tokens: bucket(limits.tokens) }
    }

    /// Takes a request with so many tokens, or says when to come back. `now`: seconds since the start.
    pub fn take(&mut self, tokens: usize, now: f64) -> Result<(), TooEarly> {
        #[allow(clippy::cast_precision_loss)]
        let tokens = tokens as f64;
        for (bucket, amount, limit) in [(&mut self.requests, 1.0, "requests"), (&mut self.tokens, tokens, "tokens")] {
            if let Some(bucket) = bucket {
                bucket.refill(now);
                let wait = bucket.wait_for(amount);
                // A billionth of a second is rounding.
                if wait > 1e-9 {
                    return Err(TooEarly { limit, wait });
                }
            }
        }
        for (bucket, amount) in [(&mut self.requests, 1.0), (&mut self.tokens, tokens)] {
            if let Some(bucket) = bucket {
                bucket.level -= amount;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let mut quota = Quota::new(&Limits { requests: Some(60.0), tokens: None, burst: 5.0 });
        assert_eq!((0..10).filter(|_| quota.take(0, 0.0).is_ok()).count(), 5);
        let early = quota.take(0, 0.0).unwrap_err();
        assert!((early.wait - 1.0).abs() < 1e-9 && early.limit == "requests");
        assert!(quota.take(0, 1.0).is_ok());
    }

    #[test]
    fn tokens_are_counted_and_a_giant_waits_for_a_full_bucket() {
        let mut quota = Quota::new(&Limits { requests: None, tokens: Some(600.0), burst: 10.0 });
        assert!(quota.take(100, 0.0).is_ok());
        assert!((quota.take(50, 0.0).unwrap_err().wait - 5.0).abs() < 1e-9);
        assert!(quota.take(500, 10.0).is_ok());
    }
}
