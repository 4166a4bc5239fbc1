//! How many windows so many events touch: videos come by a Zipf law, event types by their weights, and events one independently of the
//! other. So the number of a series' events in any span is Poisson-distributed, and what is expected of all is a sum over series.

/// Ranks that are taken one by one; those behind them are alike enough to be taken in bands.
const RANKS: u32 = 1_000;

/// Each band is so much wider than the ranks before it.
const BAND: f64 = 0.01;

/// Videos that are about equally popular.
#[derive(Copy, Clone, Debug)]
struct Band {
    videos: f64,
    /// Of all events, those of one of these videos.
    share: f64,
}

/// How events are spread over series.
#[derive(Clone, Debug)]
pub struct Popularity {
    bands: Vec<Band>,
    /// Event types with their shares of the events.
    types: Vec<(String, f64)>,
}

impl Popularity {
    /// Of so many videos, the one of rank `r` with a weight of `r^-zipf`.
    pub fn new(videos: u32, zipf: f64, types: &[(String, u32)]) -> Self {
        let mut bands = Vec::new();
        let mut first = 1;
        while first <= videos {
            let behind = match first {
                ..=RANKS => first + 1,
                _ => first.saturating_add((f64::from(first) * BAND) as u32).min(videos.saturating_add(1)),
            };
            let middle = (f64::from(first) + f64::from(behind - 1)) / 2.0;
            bands.push(Band { videos: f64::from(behind - first), share: middle.powf(-zipf) });
            if behind == u32::MAX {
                break;
            }
            first = behind;
        }
        let all: f64 = bands.iter().map(|band| band.videos * band.share).sum();
        bands.iter_mut().for_each(|band| band.share /= all);
        let weights: f64 = types.iter().map(|(_, weight)| f64::from(*weight)).sum();
        let types = types.iter().map(|(name, weight)| (name.clone(), f64::from(*weight) / weights)).collect();
        Self { bands, types }
    }

    /// The sum, over all series, of what is expected of one: `of` is given its event type and how many of the `events` are expected to be its.
    pub fn sum(&self, events: f64, of: impl Fn(&str, f64) -> f64) -> f64 {
        let of_band = |band: &Band| {
            let of_type = |(name, share): &(String, f64)| of(name, events * band.share * share);
            band.videos * self.types.iter().map(of_type).sum::<f64>()
        };
        self.bands.iter().map(of_band).sum()
    }

    /// How many series have any of so many events.
    pub fn touched(&self, events: f64) -> f64 {
        self.sum(events, |_, expected| any(expected))
    }
}

/// The chance that there is any, where so many are expected.
pub fn any(expected: f64) -> f64 {
    -(-expected).exp_m1()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(weights: &[u32]) -> Vec<(String, u32)> {
        weights.iter().map(|weight| (format!("t{weight}"), *weight)).collect()
    }

    #[test]
    fn bands_come_to_the_same_as_every_rank_by_itself() {
        let (videos, zipf) = (50_000, 1.1);
        let popularity = Popularity::new(videos, zipf, &types(&[80, 15, 5]));
        let weight = |rank: u32| f64::from(rank).powf(-zipf);
        let all: f64 = (1..=videos).map(weight).sum();
        for events in [1.0, 1_000.0, 100_000.0, 10_000_000.0] {
            let one_by_one: f64 = (1..=videos)
                .flat_map(|rank| [0.80, 0.15, 0.05].map(|share| any(events * share * weight(rank) / all)))
                .sum();
            let banded = popularity.touched(events);
            assert!((banded / one_by_one - 1.0).abs() < 0.001, "{events}: {banded} and {one_by_one}");
        }
    }

    #[test]
    fn every_series_is_touched_in_the_end_and_none_by_nothing() {
        for videos in [1, 2, 1_000, 1_001, 1_002, 12_345, u32::MAX] {
            let popularity = Popularity::new(videos, 1.1, &types(&[3, 1]));
            let (none, all) = (popularity.touched(0.0), popularity.touched(1e30));
            assert!(none == 0.0 && (all / (2.0 * f64::from(videos)) - 1.0).abs() < 1e-9, "{videos}: {none} and {all}");
        }
    }

    #[test]
    fn where_all_are_alike_it_is_the_birthday_problem() {
        let popularity = Popularity::new(1_000_000, 0.0, &types(&[1]));
        let expect = 1_000_000.0 * (1.0 - (-0.5_f64).exp());
        assert!((popularity.touched(500_000.0) / expect - 1.0).abs() < 1e-6);
    }

    #[test]
    fn what_is_summed_knows_its_event_type() {
        let popularity = Popularity::new(10, 1.1, &types(&[80, 20]));
        let of_one = popularity.sum(1_000.0, |name, expected| if name == "t80" { expected } else { 0.0 });
        assert!((of_one - 800.0).abs() < 1e-6, "{of_one}");
    }
}
