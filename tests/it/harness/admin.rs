//! What the admin listener says.

use serde_json::Value;

use super::{Client, Proxy};

impl Proxy {
    /// The status API. The configuration must have `[admin]`.
    #[track_caller]
    pub fn status(&self) -> Value {
        let reply = Client::connect(self.addr("admin")).get("/api/v1/status");
        assert_eq!(reply.status, 200);
        serde_json::from_slice(&reply.body).unwrap()
    }

    /// The sum of every sample of a metric whose line begins with `series` (a name, or a name and its first labels).
    #[track_caller]
    pub fn metric(&self, series: &str) -> f64 {
        let reply = Client::connect(self.addr("admin")).get("/metrics");
        assert_eq!(reply.status, 200);
        let text = reply.text();
        let values = text.lines().filter(|line| {
            let rest = line.strip_prefix(series);
            rest.is_some_and(|rest| series.ends_with(['{', ',', '}']) || rest.starts_with([' ', '{', ',']))
        });
        values
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .fold(0.0, |sum, value| sum + value)
    }
}
