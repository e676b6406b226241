//! Days of the planner in virtual time: its own functions decide, a small model of batches and of the live lane answers.
//!
//! **The best policy in hindsight** knows beforehand when each batch will end, and what the live lane can do. It puts each
//! request into one batch if that ends before the deadline, and sends the others by themselves; where a queue limits the
//! batches that are open at once, it takes the shortest ones, as many as fit if batches could be cut and put together
//! without loss. So no policy that puts a request into one batch at most costs less. It keeps nothing in reserve and is
//! never surprised, which no real policy can do.

use super::super::stalls::Stalls;
use super::*;

/// Seconds between two looks.
const TICK: f64 = 5.0;
/// Lines of a batch, at most; but no more than a quarter of what the provider's queue takes.
const SIZE: usize = 5000;

/// How long batches take in truth: lognormal, and a share never ends by itself.
#[derive(Debug, Clone, Copy)]
struct Truth {
    median: f64,
    nine_of_ten: f64,
    stuck: f64,
}

const USUAL: Truth = Truth { median: MEDIAN, nine_of_ten: NINE_OF_TEN, stuck: STUCK };

impl Truth {
    /// The same, so many times as slow.
    fn slower(self, times: f64) -> Self {
        Self { median: self.median * times, nine_of_ten: self.nine_of_ten * times, ..self }
    }

    fn draw(&self, random: &mut fastrand::Rng) -> f64 {
        if random.f64() < self.stuck {
            return f64::INFINITY;
        }
        let deviation = (self.nine_of_ten / self.median).ln() / NINETY;
        let normal = (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos();
        self.median * (deviation * normal).exp()
    }

    /// What a store knows that has seen so many of them.
    fn known(&self, seen: usize) -> Lengths {
        let mut random = fastrand::Rng::with_seed(7);
        // One that is stuck is ended by its provider after a day.
        Lengths::new((0..seen).map(|_| self.draw(&mut random).min(86_400.0)).collect())
    }
}

#[derive(Debug, Clone)]
struct Scene {
    requests: usize,
    /// Requests per second that the live lane answers, and what is believed of it.
    rate: f64,
    believed: f64,
    deadline: f64,
    /// The longest that a cancelled batch takes.
    settle: f64,
    /// Requests in batches that the provider has open, at most.
    queue: Option<usize>,
    truth: Truth,
    lengths: Lengths,
    seed: u64,
}

impl Scene {
    fn size(&self) -> usize {
        self.queue.map_or(SIZE, |most| SIZE.min(most / 4)).max(1)
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Outcome {
    end: f64,
    in_batches: usize,
    live: usize,
}

impl Outcome {
    /// In requests by themselves.
    #[allow(clippy::cast_precision_loss)]
    fn cost(self) -> f64 {
        0.5f64.mul_add(self.in_batches as f64, self.live as f64)
    }
}

struct Batch {
    number: i64,
    lines: usize,
    /// None: it waits for room in the provider's queue.
    ends_at: Option<f64>,
    /// When its requests are back, once it is cancelled.
    is_back_at: Option<f64>,
}

/// A day of a scene, as it goes on.
struct Day<'a> {
    scene: &'a Scene,
    /// For how long batches take, and cancellations: these are drawn apart, so that hindsight knows the former.
    lengths: fastrand::Rng,
    random: fastrand::Rng,
    now: f64,
    undecided: usize,
    /// On their way by themselves, and how much of the next one is done.
    live: usize,
    part: f64,
    pace: Pace,
    batches: Vec<Batch>,
    number: i64,
    stalls: Stalls,
    done: Outcome,
}

impl<'a> Day<'a> {
    fn of(scene: &'a Scene) -> Outcome {
        let mut day = Self {
            scene,
            lengths: fastrand::Rng::with_seed(scene.seed),
            random: fastrand::Rng::with_seed(!scene.seed),
            now: 0.0,
            undecided: scene.requests,
            live: 0,
            part: 0.0,
            pace: Pace::new(scene.believed),
            batches: Vec::new(),
            number: 0,
            // The provider counts nothing until a batch has ended.
            stalls: Stalls::new(Some(scene.lengths.late())),
            done: Outcome::default(),
        };
        while day.done.in_batches + day.done.live < scene.requests {
            day.decide();
            day.now += TICK;
            day.send();
            day.collect();
            assert!(day.now < 30.0 * 86_400.0, "{scene:?}");
        }
        day.done.end = day.now;
        day.done
    }

    fn situation(&self) -> Situation {
        let lines = |is_back: bool| -> usize {
            self.batches.iter().filter(|batch| batch.is_back_at.is_some() == is_back).map(|batch| batch.lines).sum()
        };
        Situation {
            left: Some(self.scene.deadline.mul_add(PLANNED, -self.now)),
            rate: self.pace.rate(),
            settle: self.scene.settle,
            is_cheaper: true,
            in_batches: lines(false),
            settling: lines(true),
            others: self.live,
        }
    }

    fn decide(&mut self) {
        // Out of batches.
        let situation = self.situation();
        let mut excess = Situation { others: self.live + self.undecided, ..situation }.excess();
        // Those that wait for room are out at once; then the oldest.
        self.batches.sort_by_key(|batch| batch.ends_at.is_some());
        while excess > 0 {
            let Some(at) = self.batches.iter().position(|batch| batch.is_back_at.is_none()) else { break };
            excess = excess.saturating_sub(self.batches[at].lines);
            if self.batches[at].ends_at.is_none() {
                self.undecided += self.batches.remove(at).lines;
            } else {
                self.batches[at].is_back_at = Some(self.random.f64().mul_add(self.scene.settle, self.now));
            }
        }
        // Into batches.
        let situation = self.situation();
        let (mut placed, why) = split(self.undecided, &situation, &self.scene.lengths);
        self.undecided -= placed;
        while placed > 0 {
            let lines = placed.min(self.scene.size());
            self.number += 1;
            self.batches.push(Batch { number: self.number, lines, ends_at: None, is_back_at: None });
            placed -= lines;
        }
        // By themselves.
        let all = Situation { others: self.live + self.undecided, ..self.situation() };
        let most = if why == Some(Why::Reserve) { all.window() } else { usize::MAX };
        let sent = self.undecided.min(most.saturating_sub(self.live));
        self.undecided -= sent;
        self.live += sent;
        // The provider takes what it has room for.
        let mut open: usize =
            self.batches.iter().filter(|batch| batch.ends_at.is_some()).map(|batch| batch.lines).sum();
        let is_stalled = self.stalls.is_stalled(self.now);
        for batch in self.batches.iter_mut().filter(|batch| batch.ends_at.is_none() && !is_stalled) {
            if self.scene.queue.is_none_or(|most| open + batch.lines <= most) {
                open += batch.lines;
                batch.ends_at = Some(self.now + self.scene.truth.draw(&mut self.lengths));
                self.stalls.opened(batch.number, self.now);
            }
        }
    }

    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn send(&mut self) {
        self.part += self.scene.rate * TICK;
        let sent = (self.part.floor() as usize).min(self.live);
        if sent == self.live {
            self.part = 0.0;
        } else {
            self.part -= sent as f64;
            self.pace.see(sent as f64, TICK);
        }
        self.live -= sent;
        self.done.live += sent;
    }

    fn collect(&mut self) {
        let (now, done, undecided, stalls) = (self.now, &mut self.done, &mut self.undecided, &mut self.stalls);
        self.batches.retain(|batch| {
            let has_ended = batch.ends_at.is_some_and(|at| at <= now);
            // Of one that is cancelled nothing is done: that is the dearest of what may happen.
            let is_back = batch.is_back_at.is_some_and(|at| at <= now);
            if has_ended {
                done.in_batches += batch.lines;
            } else if is_back {
                *undecided += batch.lines;
            }
            if has_ended || is_back {
                stalls.ended(batch.number, now);
            }
            !has_ended && !is_back
        });
    }
}

/// What the best policy in hindsight costs: see the module.
#[allow(clippy::cast_precision_loss)]
fn hindsight(scene: &Scene) -> f64 {
    let mut random = fastrand::Rng::with_seed(scene.seed);
    let batches = scene.requests.div_ceil(scene.size());
    let mut lengths: Vec<f64> = (0..batches).map(|_| scene.truth.draw(&mut random)).collect();
    lengths.sort_by(f64::total_cmp);
    let mut room = scene.queue.map_or(f64::INFINITY, |most| (most / scene.size()) as f64 * scene.deadline);
    let mut done = 0.0;
    for length in lengths {
        if length > scene.deadline || room <= 0.0 {
            break;
        }
        done += (room / length).min(1.0) * scene.size() as f64;
        room -= length;
    }
    let requests = scene.requests as f64;
    requests - 0.5 * done.min(requests)
}

const HOUR: f64 = 3600.0;
/// Of the time to the deadline, what the live lane needs for all requests: at 0.95 there is hardly room for any mistake.
const LOADS: std::ops::Range<f64> = 0.02..0.95;

/// A day by its number: how much there is to do, in how long, and how fast that can be sent. In every other one the
/// provider's queue takes a sixth of the requests, so that batches come in waves.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn scene(seed: u64, hours: std::ops::Range<f64>, truth: Truth, lengths: &Lengths) -> Scene {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut within = |range: std::ops::Range<f64>| (range.end - range.start).mul_add(random.f64(), range.start);
    let deadline = HOUR * within(hours);
    let rate = 10.0_f64.powf(within(0.0..2.0));
    let requests = (within(LOADS) * rate * deadline) as usize;
    Scene {
        requests,
        rate,
        believed: rate * within(0.8..1.25),
        deadline,
        settle: within(60.0..720.0),
        queue: seed.is_multiple_of(2).then_some(requests / 6),
        truth,
        lengths: lengths.clone(),
        seed,
    }
}

/// What became of some days.
#[derive(Debug, Default)]
struct Sum {
    days: usize,
    missed: Vec<Scene>,
    requests: f64,
    cost: f64,
    best: f64,
}

impl Sum {
    #[allow(clippy::cast_precision_loss)]
    fn of(scenes: impl Iterator<Item = Scene>) -> Self {
        scenes.fold(Self::default(), |mut sum, scene| {
            let outcome = Day::of(&scene);
            sum.days += 1;
            // Requests are not divided among looks: the last ones may be counted with the next.
            if outcome.end > scene.deadline + TICK {
                sum.missed.push(scene.clone());
            }
            sum.requests += scene.requests as f64;
            sum.cost += outcome.cost();
            sum.best += hindsight(&scene);
            sum
        })
    }

    fn ratio(&self) -> f64 {
        self.cost / self.best
    }

    fn line(&self, name: &str) -> String {
        let Self { days, missed, requests, cost, best } = self;
        format!(
            "| {name} | {days} | {} | {:.3} | {:.3} | {:.3} |",
            missed.len(),
            cost / requests,
            best / requests,
            self.ratio()
        )
    }
}

/// So many days in each of which another share of the batches is stuck: from none to all.
fn stuck_days(days: u64, hours: f64) -> Sum {
    #[allow(clippy::cast_precision_loss)]
    let stuck = |seed: u64| Truth { stuck: (seed % 11) as f64 / 10.0, ..USUAL };
    Sum::of((0..days).map(|seed| scene(seed, hours..hours, stuck(seed), &Lengths::default())))
}

#[test]
fn deadlines_hold_whatever_is_stuck() {
    let sum = stuck_days(200, 6.0);
    assert!(sum.missed.is_empty(), "{:?}", sum.missed);
}

#[test]
fn costs_are_near_those_of_the_best_policy_in_hindsight() {
    let sum = Sum::of((0..50).map(|seed| scene(seed, 1.0..24.0, USUAL, &Lengths::default())));
    assert!(sum.ratio() < 1.05 && sum.missed.is_empty(), "{sum:?}");
}

#[test]
fn deadlines_hold_whatever_was_believed_of_batches() {
    for times in [0.1, 10.0] {
        for lengths in [Lengths::default(), USUAL.known(50)] {
            let sum = Sum::of((0..25).map(|seed| scene(seed, 2.0..24.0, USUAL.slower(times), &lengths)));
            assert!(sum.missed.is_empty(), "{times}: {:?}", sum.missed);
        }
    }
}

#[test]
#[ignore = "ten minutes; `make soak` runs it"]
#[allow(clippy::print_stdout)]
fn a_thousand_days_of_each_kind() {
    let days = |hours: std::ops::Range<f64>, truth: Truth, lengths: Lengths| {
        Sum::of((0..1000).map(move |seed| scene(seed, hours.clone(), truth, &lengths)))
    };
    let all = days(1.0..24.0, USUAL, Lengths::default());
    let usual = days(4.0..24.0, USUAL, Lengths::default());
    let short = days(1.0..4.0, USUAL, Lengths::default());
    let wrong = [
        ("batches ten times slower than estimated", days(2.0..24.0, USUAL.slower(10.0), Lengths::default())),
        ("the same, and 50 earlier ones were fast", days(2.0..24.0, USUAL.slower(10.0), USUAL.known(50))),
        ("batches ten times faster than estimated", days(2.0..24.0, USUAL.slower(0.1), Lengths::default())),
        ("the same, and 50 earlier ones were slow", days(2.0..24.0, USUAL.slower(0.1), USUAL.known(50))),
        ("from none to all batches are stuck, 6 h", stuck_days(1000, 6.0)),
    ];
    println!("| days | number | missed | cost | in hindsight | ratio |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    println!("{}", all.line("as estimated, deadline 1 to 24 h"));
    println!("{}", usual.line("as estimated, deadline 4 to 24 h"));
    println!("{}", short.line("as estimated, deadline 1 to 4 h"));
    for (name, sum) in &wrong {
        println!("{}", sum.line(name));
        assert!(sum.missed.is_empty(), "{name}: {:?}", sum.missed);
    }
    for sum in [all, usual] {
        assert!(sum.ratio() < 1.05 && sum.missed.is_empty(), "{sum:?}");
    }
    assert!(short.missed.is_empty(), "{:?}", short.missed);
}
