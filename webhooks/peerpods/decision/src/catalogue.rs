//! The machines on offer, and the cheapest that a guest fits on.

use crate::size::Size;

/// A machine type of the cloud.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// The cloud's name for it, such as `m6i.large`.
    pub name: String,
    /// What it has.
    pub size: Size,
    /// What it costs, in whatever unit; only the order counts.
    pub price: f64,
}

/// Machine types, the best one first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue(Vec<Machine>);

impl Catalogue {
    /// Orders machines by price, then GPUs, memory and vCPUs: the order in which cloud-api-adaptor looks through its
    /// own list, where prices are equal.
    pub fn new(mut machines: Vec<Machine>) -> Self {
        machines.sort_by(|a, b| {
            let by_size = |m: &Machine| (m.size.gpus, m.size.memory, m.size.vcpus);
            a.price.total_cmp(&b.price).then_with(|| by_size(a).cmp(&by_size(b)))
        });
        Self(machines)
    }

    /// Whether nothing is on offer, so that machine types aren't this webhook's business.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first machine that has at least `wanted`. One with GPUs is only for who wants some, as in cloud-api-adaptor.
    pub fn best_fit(&self, wanted: Size) -> Option<&Machine> {
        self.0.iter().find(|machine| {
            let has = machine.size;
            has.vcpus >= wanted.vcpus
                && has.memory >= wanted.memory
                && if wanted.gpus == 0 { has.gpus == 0 } else { has.gpus >= wanted.gpus }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(name: &str, vcpus: u64, memory: u64, gpus: u64, price: f64) -> Machine {
        Machine { name: name.into(), size: Size { vcpus, memory, gpus }, price }
    }

    fn fit(catalogue: &Catalogue, vcpus: u64, memory: u64, gpus: u64) -> Option<&str> {
        catalogue.best_fit(Size { vcpus, memory, gpus }).map(|m| m.name.as_str())
    }

    #[test]
    fn the_cheapest_that_fits() {
        let catalogue = Catalogue::new(vec![
            machine("large", 2, 8192, 0, 0.09),
            machine("burst", 2, 8192, 0, 0.08),
            machine("small", 1, 2048, 0, 0.02),
            machine("gpu", 8, 32768, 1, 0.05),
        ]);
        assert_eq!(fit(&catalogue, 1, 2048, 0), Some("small"));
        assert_eq!(fit(&catalogue, 1, 2049, 0), Some("burst"));
        assert_eq!(fit(&catalogue, 3, 0, 0), None, "a machine with GPUs is not for who wants none");
        assert_eq!(fit(&catalogue, 1, 0, 1), Some("gpu"));
        assert_eq!(fit(&catalogue, 1, 0, 2), None);
    }

    #[test]
    fn without_prices_the_smallest() {
        let catalogue = Catalogue::new(vec![machine("b", 2, 8192, 0, 0.0), machine("a", 4, 4096, 0, 0.0)]);
        assert_eq!(fit(&catalogue, 1, 1, 0), Some("a"));
        assert_eq!(fit(&catalogue, 1, 8000, 0), Some("b"));
    }
}
