//! How long a cheat goes unseen.
//!
//! With an audit rate q and certain detection, m cheats all go unseen with
//! probability (1 - q)^m. In integers of 32 fractional bits, rounded down, so
//! that nothing is promised too early by more than one cheat.

/// What an audit rate deters from.
///
/// ```
/// use peerproof_job::reputation::Deterrence;
///
/// let floor = Deterrence::at(50);
/// assert_eq!((floor.half, floor.ninety_nine), (Some(14), Some(90)));
/// assert_eq!(floor.unseen_ppm(1), 950_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deterrence {
    /// Audits in a thousand answers.
    pub permille: u16,
    /// By this cheat, half of all cheats are caught; `None` without audits.
    pub half: Option<u32>,
    /// By this cheat, 99 of 100 are caught.
    pub ninety_nine: Option<u32>,
}

const WHOLE: u64 = 1 << 32;

impl Deterrence {
    /// The figures of an audit rate, at most 1000.
    #[must_use]
    pub fn at(permille: u16) -> Self {
        let permille = permille.min(1000);
        let until = |share: u64| {
            let mut unseen = WHOLE;
            (1..=20_000_u32).find(|_| {
                unseen = unseen * u64::from(1000 - permille) / 1000;
                unseen <= share
            })
        };
        let of = |share| if permille == 0 { None } else { until(share) };
        Self { permille, half: of(WHOLE / 2), ninety_nine: of(WHOLE / 100) }
    }

    /// Chance in a million that so many cheats all go unseen.
    #[must_use]
    pub fn unseen_ppm(&self, cheats: u32) -> u32 {
        let mut unseen = WHOLE;
        for _ in 0..cheats {
            if unseen == 0 {
                break;
            }
            unseen = unseen * u64::from(1000 - self.permille) / 1000;
        }
        ((unseen * 1_000_000 + WHOLE / 2) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_powers() {
        for (permille, half, ninety_nine) in [(500, 1, 7), (100, 7, 44), (50, 14, 90), (1000, 1, 1)]
        {
            let figures = Deterrence::at(permille);
            assert_eq!((figures.half, figures.ninety_nine), (Some(half), Some(ninety_nine)));
            for cheats in [0, 1, 5, 40] {
                let exact = (1.0 - f64::from(permille) / 1000.0).powi(cheats as i32) * 1e6;
                let error = (f64::from(figures.unseen_ppm(cheats)) - exact).abs();
                assert!(error <= 1.0, "{permille} {cheats}: {error}");
            }
        }
        assert_eq!(Deterrence::at(0), Deterrence { permille: 0, half: None, ninety_nine: None });
        assert_eq!(Deterrence::at(0).unseen_ppm(9), 1_000_000);
    }
}
