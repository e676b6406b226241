//! The Rust half of batch-llm: the engine of a run, native providers, stores, and the bridge to Python.
//!
//! Floors, from the bottom: [`engine`] decides, and knows neither Python nor HTTP nor files. [`providers`],
//! [`journal`], [`sharing`] and [`simulator`] are side by side above it, and know no Python. [`batches`] has the
//! providers' batches. [`dispatch`] executes attempts and carries messages to the event loop. `bridge` alone knows
//! Python. A floor uses only those below it, as the tests in `floors.rs` check; `cargo test --no-default-features` builds
//! everything but the bridge.

mod files;
#[cfg(test)]
mod floors;

// Nobody else uses this crate. With the bridge all is private, so that the compiler names what nothing uses; without it,
// what the bridge uses is public, and has to be documented.
#[cfg(feature = "python")]
mod batches;
#[cfg(feature = "python")]
mod dispatch;
#[cfg(feature = "python")]
mod engine;
#[cfg(feature = "python")]
mod journal;
#[cfg(feature = "python")]
mod providers;
#[cfg(feature = "python")]
mod sharing;
#[cfg(feature = "python")]
mod simulator;
#[cfg(feature = "python")]
mod spool;

#[cfg(not(feature = "python"))]
pub mod batches;
#[cfg(not(feature = "python"))]
pub mod dispatch;
#[cfg(not(feature = "python"))]
pub mod engine;
#[cfg(not(feature = "python"))]
pub mod journal;
#[cfg(not(feature = "python"))]
pub mod providers;
#[cfg(not(feature = "python"))]
pub mod sharing;
#[cfg(not(feature = "python"))]
pub mod simulator;
#[cfg(not(feature = "python"))]
pub mod spool;

#[cfg(feature = "python")]
mod bridge;

/// `batch_llm._core`: only registers what the bridge offers.
#[cfg(feature = "python")]
// Not yet tried without the GIL (docs/versioning.md): a free-threaded interpreter turns it on.
#[pyo3::pymodule(gil_used = true)]
mod _core {
    #[pymodule_export]
    use crate::bridge::attempt::PlainAttempts;
    #[pymodule_export]
    use crate::bridge::batches::{BatchLane, batches_of, is_cheaper_live, plan_batches};
    #[pymodule_export]
    use crate::bridge::boards::{LimitServerHandle, LimitTable, PyBoard};
    #[pymodule_export]
    use crate::bridge::caller::{EndingCoroutine, EndsAtCaller};
    #[pymodule_export]
    use crate::bridge::client::{
        NativeClient, PyAddress, SchemaCheck, classify_error, example, is_secret_name, providers,
    };
    #[pymodule_export]
    use crate::bridge::clouds::{cloud_url, names_entra};
    #[pymodule_export]
    use crate::bridge::convert::sums;
    #[pymodule_export]
    use crate::bridge::flight::Flight;
    #[pymodule_export]
    use crate::bridge::journal::{Cache, Journal, fingerprint, format_of};
    #[pymodule_export]
    use crate::bridge::journal_view::JournalView;
    #[pymodule_export]
    use crate::bridge::listener::TokenListener;
    #[pymodule_export]
    use crate::bridge::media::PyMedia;
    #[pymodule_export]
    use crate::bridge::pool::NativePool;
    #[pymodule_export]
    use crate::bridge::pool_trial::{PoolPlace, PoolTrial};
    #[pymodule_export]
    use crate::bridge::prompt::Messages;
    #[pymodule_export]
    use crate::bridge::run::RunHandle;
    #[pymodule_export]
    use crate::bridge::runner::Runner;
    #[pymodule_export]
    use crate::bridge::runtime::{after_fork_in_child, after_fork_in_parent, before_exit, before_fork, leave_behind};
    #[pymodule_export]
    use crate::bridge::scope::Scope;
    #[pymodule_export]
    use crate::bridge::shelf::Shelf;
    #[pymodule_export]
    use crate::bridge::simulator::SimulatorHandle;
    #[pymodule_export]
    use crate::bridge::timing::Timing;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let os = module.py().import("os")?;
        // Windows has no fork, and no hook for it.
        if os.hasattr("register_at_fork")? {
            let hook = pyo3::types::PyDict::new(module.py());
            hook.set_item("before", module.getattr("before_fork")?)?;
            hook.set_item("after_in_parent", module.getattr("after_fork_in_parent")?)?;
            hook.set_item("after_in_child", module.getattr("after_fork_in_child")?)?;
            os.call_method("register_at_fork", (), Some(&hook))?;
        }
        module.py().import("atexit")?.call_method1("register", (module.getattr("before_exit")?,))?;
        Ok(())
    }
}
