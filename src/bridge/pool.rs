//! Pools, as Python makes them: of native clients, or with members in Python.

use std::sync::Arc;

use arc_swap::ArcSwap;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::client::NativeClient;
use super::convert;
use super::errors::BridgeError;
use super::pool_trial::{Desk, PoolTrial, tell};
use super::prompt;
use super::runtime::{Process, attached};
use super::scope::Scope;
use crate::engine::pool::choice::MOST;
use crate::engine::pool::hedging::When;
use crate::engine::pool::{News, Part, Pool, Reasons};
use crate::engine::scope::Scope as Shared;
use crate::providers::Provider;
use crate::providers::pooled::{Doubt, Member, Pooled, Ways, prefix};

/// A member, read from a Python object with these attributes.
#[derive(FromPyObject)]
struct PyMember {
    /// `None`: it is a strategy in Python. Where others are, it only tells how much its server has to do.
    client: Option<Py<NativeClient>>,
    scope: Py<Scope>,
    label: String,
    weight: f64,
    tier: u8,
    reasons: Vec<String>,
    endpoint: u64,
    is_own_server: bool,
}

/// What a pool is made of. A forked child makes it anew.
pub struct Pooling {
    members: Vec<PyMember>,
    choices: Choices,
    present: ArcSwap<OfProcess>,
}

/// How the pool is to work, beyond its members.
struct Choices {
    when: When,
    /// Whether Python asks the members.
    is_mixed: bool,
    hear: Arc<Py<PyAny>>,
    doubt: Option<Arc<Py<PyAny>>>,
}

struct OfProcess {
    process: Process,
    desk: Arc<Desk>,
    /// `None`: Python asks the members, with [`PoolTrial`].
    provider: Option<Arc<dyn Provider>>,
    scope: Arc<Shared>,
}

impl OfProcess {
    fn new(members: &[PyMember], choices: &Choices) -> PyResult<Self> {
        let part = |member: &PyMember| {
            let unknown = |name: &String| PyValueError::new_err(format!("on: {name:?} is not a reason for a fallback"));
            Ok(Part {
                scope: member.scope.get().shared(),
                weight: member.weight,
                tier: member.tier,
                reasons: Reasons::named(&member.reasons).map_err(unknown)?,
                endpoint: member.endpoint,
                is_own_server: member.is_own_server,
            })
        };
        let parts = members.iter().map(part).collect::<PyResult<_>>()?;
        let pool = Arc::new(Pool::new(parts, choices.when, fastrand::u64(..)));
        let of_member = |member: &PyMember| member.client.as_ref().map(|client| client.get().provider()).transpose();
        let providers: Box<[Option<Arc<dyn Provider>>]> = members.iter().map(of_member).collect::<PyResult<_>>()?;
        let provider = if choices.is_mixed { None } else { Self::provider(members, &providers, &pool, choices) };
        let scope = Arc::new(Shared::of_seats(Arc::<Pool>::clone(&pool)));
        let labels = members.iter().map(|member| member.label.clone()).collect();
        let desk = Arc::new(Desk { pool, labels, providers, hear: Arc::clone(&choices.hear) });
        Ok(Self { process: Process::current(), desk, provider, scope })
    }

    /// The one that asks all members; `None`: one of them is in Python.
    fn provider(
        members: &[PyMember],
        providers: &[Option<Arc<dyn Provider>>],
        pool: &Arc<Pool>,
        choices: &Choices,
    ) -> Option<Arc<dyn Provider>> {
        let of_member = |(member, provider): (&PyMember, &Option<Arc<dyn Provider>>)| {
            Some(Member { provider: provider.clone()?, label: member.label.clone() })
        };
        let members: Vec<Member> = members.iter().zip(providers).map(of_member).collect::<Option<_>>()?;
        let hear = Arc::clone(&choices.hear);
        let told = move |news: News, label: &str, why: &str| {
            attached(|py| tell(py, &hear, news, label, why));
        };
        let doubt = choices.doubt.clone().map(|doubt| -> Doubt {
            Box::new(move |reply| {
                let asked = attached(|py| {
                    let answer = doubt.call1(py, (convert::reply(py, reply)?,))?;
                    answer.bind(py).is_truthy()
                });
                // The function has reported its errors itself.
                asked.is_some_and(|outcome| outcome.unwrap_or(false))
            })
        });
        let ways = Ways { hear: Box::new(told), doubt };
        Some(Arc::new(Pooled::new(members, Arc::clone(pool), ways)))
    }
}

impl Pooling {
    fn present(&self) -> PyResult<Arc<OfProcess>> {
        let present = self.present.load_full();
        if present.process == Process::current() {
            return Ok(present);
        }
        // Dropping the parent's would take locks that may be held by threads that are not here.
        std::mem::forget(present);
        let fresh = Arc::new(OfProcess::new(&self.members, &self.choices)?);
        std::mem::forget(self.present.swap(Arc::clone(&fresh)));
        Ok(fresh)
    }

    /// Its provider, in this process.
    pub fn provider(&self) -> PyResult<Arc<dyn Provider>> {
        self.present()?.provider.clone().ok_or_else(|| PyValueError::new_err("this pool has members in Python"))
    }

    /// The scope of its runs, in this process.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn scope(&self) -> PyResult<Arc<Shared>> {
        Ok(Arc::clone(&self.present()?.scope))
    }
}

impl Drop for Pooling {
    fn drop(&mut self) {
        if self.present.load().process != Process::current() {
            std::mem::forget(self.present.load_full());
        }
    }
}

/// Several clients as one.
#[pyclass(frozen, module = "batch_llm._core")]
pub struct NativePool(Arc<Pooling>);

#[pymethods]
impl NativePool {
    /// `is_mixed`: Python asks the members, with [`trial`](Self::trial). `hear(kind, label, why)` is called, in a thread of the extension, with what becomes of members; `doubt(answer)` with
    /// answers, where a fallback is to be asked if it returns true.
    #[new]
    #[pyo3(signature = (members, hedge, is_mixed, hear, doubt = None))]
    fn new(
        members: Vec<PyMember>,
        hedge: &str,
        is_mixed: bool,
        hear: Py<PyAny>,
        doubt: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        if !(1..=MOST).contains(&members.len()) {
            return Err(PyValueError::new_err(format!(
                "a pool has 1 to {MOST} members, fallbacks included (got {})",
                members.len()
            )));
        }
        let when = match hedge {
            "tail" => When::Tail,
            "always" => When::Always,
            _ => When::Never,
        };
        let choices = Choices { when, is_mixed, hear: Arc::new(hear), doubt: doubt.map(Arc::new) };
        let present = ArcSwap::from_pointee(OfProcess::new(&members, &choices)?);
        Ok(Self(Arc::new(Pooling { members, choices, present })))
    }

    /// The client that sends to all of them.
    fn client(&self) -> PyResult<NativeClient> {
        let Some(first) = self.0.members.first() else { return Err(BridgeError::Forked.into()) };
        let Some(client) = &first.client else { return Err(PyValueError::new_err("this pool has members in Python")) };
        Ok(client.get().pooled(Arc::clone(&self.0)))
    }

    /// An attempt with a prompt, for a pool with members in Python.
    fn trial(&self, prompt: &Bound<'_, PyAny>) -> PyResult<PoolTrial> {
        let desk = Arc::clone(&self.0.present()?.desk);
        // Members in Python may take prompts that nobody else can read.
        let read = if desk.pool.keeps_prefixes() { prompt::read(prompt).ok() } else { None };
        Ok(PoolTrial::new(desk, read.as_ref().and_then(prefix::of)))
    }

    /// What their requests share.
    fn scope(&self) -> Scope {
        let pool = Arc::clone(&self.0);
        // A child that cannot make its pool says so where it sends requests.
        Scope::found_by(move || pool.scope().unwrap_or_default())
    }

    /// Labels of the members that are never asked again.
    fn dropped(&self) -> PyResult<Vec<String>> {
        let dropped = self.0.present()?.desk.pool.dropped();
        Ok(dropped.into_iter().filter_map(|number| Some(self.0.members.get(number)?.label.clone())).collect())
    }
}
