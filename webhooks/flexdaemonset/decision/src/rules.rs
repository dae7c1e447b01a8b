//! A template, parsed and validated: what it says about a node.

use std::cmp::Ordering;

use serde_json::Value;

use crate::node::Node;
use crate::resource::{PerResource, SizedResource};
use crate::template::{
    Amount, ContainerShare, Distribution, Floor, LimitPolicy, Operator, Refit, Requirement, Selector, Share,
    Size, TemplateSpec, WhenMinExceedsAllocatable,
};

/// One percent, in the unit of [`Rule::share`].
const PERCENT: u32 = 10_000_000;

/// The `spec` of a `FlexDaemonsetTemplate`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// `distribution`.
    pub distribution: Distribution,
    /// `containers`.
    pub containers: Vec<ContainerShare>,
    /// `limits`.
    pub limits: PerResource<LimitPolicy>,
    /// `floors`.
    pub floors: PerResource<Floor>,
    /// `refit`.
    pub refit: Refit,
    when_min_exceeds_allocatable: WhenMinExceedsAllocatable,
    base: PerResource<Rule>,
    overrides: Vec<(Selector, PerResource<Rule>)>,
}

/// How much of one resource a pod gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rule {
    /// Share of the node's allocatable, in ten-millionths of a percent.
    share: Option<u32>,
    /// The minimum, in millicores or bytes.
    min: Option<i64>,
    /// The maximum, in millicores or bytes.
    max: Option<i64>,
}

/// An invalid template; the message names the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(String);

impl Template {
    /// Parses the `spec` of a template. It fails only for what the schema of the CRD rejects too.
    pub fn from_spec(spec: &Value) -> Result<Self, TemplateError> {
        let spec: TemplateSpec = serde_path_to_error::deserialize(spec)
            .map_err(|error| TemplateError(format!("spec.{}: {}", error.path(), error.inner())))?;
        let base = rules(&spec.size, "spec")?;
        let mut overrides = Vec::new();
        for (index, node_override) in spec.overrides.into_iter().enumerate() {
            let field = format!("spec.overrides[{index}]");
            for requirement in &node_override.node_selector.match_expressions {
                requirement.check().map_err(|problem| {
                    TemplateError(format!("{field}.nodeSelector: {}: {problem}", requirement.key))
                })?;
            }
            overrides.push((node_override.node_selector, rules(&node_override.size, &field)?));
        }
        check_shares(spec.distribution, &spec.containers)?;
        Ok(Self {
            distribution: spec.distribution,
            containers: spec.containers,
            limits: PerResource::from_fn(|resource| match resource {
                SizedResource::Cpu => spec.limits.cpu,
                SizedResource::Memory => spec.limits.memory,
                SizedResource::Storage => spec.limits.storage,
            }),
            floors: PerResource::from_fn(|resource| match resource {
                SizedResource::Cpu => spec.floors.cpu,
                SizedResource::Memory => spec.floors.memory,
                SizedResource::Storage => spec.floors.storage,
            }),
            refit: spec.refit,
            when_min_exceeds_allocatable: spec.when_min_exceeds_allocatable,
            base,
            overrides,
        })
    }

    /// The millicores or bytes of `resource` that a pod gets on `node`. `None` for a pod that keeps its own requests.
    ///
    /// A resource that the node doesn't report counts as zero, as it does for the scheduler.
    pub fn budget(&self, resource: SizedResource, node: &Node) -> Option<i64> {
        let rule = self.rule(resource, node);
        let allocatable = node.allocatable.get(resource).unwrap_or(0);
        let amount = match rule.min {
            Some(min) if min > allocatable => match self.when_min_exceeds_allocatable {
                WhenMinExceedsAllocatable::KeepMin => rule.amount(allocatable),
                WhenMinExceedsAllocatable::Cap => rule.at_most_max(allocatable),
                WhenMinExceedsAllocatable::UseTemplate => return None,
            },
            _ => rule.amount(allocatable),
        };
        // Zero is no size.
        Some(amount).filter(|amount| *amount > 0)
    }

    /// Whether the template has a share or a minimum of `resource` on `node`.
    pub fn sizes(&self, resource: SizedResource, node: &Node) -> bool {
        let Rule { share, min, .. } = self.rule(resource, node);
        share.is_some() || min.is_some()
    }

    /// The first override that selects `node`, completed by the rule for all nodes.
    fn rule(&self, resource: SizedResource, node: &Node) -> Rule {
        let base = *self.base.get(resource);
        let selected = self.overrides.iter().find(|(selector, _)| selector.matches(|key| node.label(key)));
        let Some((_, rules)) = selected else { return base };
        let rule = rules.get(resource);
        Rule { share: rule.share.or(base.share), min: rule.min.or(base.min), max: rule.max.or(base.max) }
    }
}

fn check_shares(distribution: Distribution, shares: &[ContainerShare]) -> Result<(), TemplateError> {
    let invalid = |problem: &str| Err(TemplateError(format!("spec.containers: {problem}")));
    if distribution == Distribution::Replicate && !shares.is_empty() {
        return invalid("only distribution Split shares a value out");
    }
    for share in shares {
        let set = [share.percent.is_some(), share.weight.is_some(), share.excluded];
        if set.into_iter().filter(|set| *set).count() != 1 {
            return invalid("each takes one of percent, weight and excluded");
        }
        if share.percent.is_some_and(|percent| !(1..=100).contains(&percent)) || share.weight == Some(0) {
            return invalid("percent is from 1 to 100, weight at least 1");
        }
    }
    let percents = shares.iter().filter_map(|share| share.percent).map(u32::from);
    if percents.sum::<u32>() > 100 { invalid("the percentages sum to more than 100") } else { Ok(()) }
}

impl Rule {
    /// floor(`allocatable` × share), at least the minimum, at most the maximum.
    fn amount(self, allocatable: i64) -> i64 {
        let share =
            i128::from(allocatable) * i128::from(self.share.unwrap_or(0)) / (100 * i128::from(PERCENT));
        // At most 100 percent of 64 bits.
        let share = i64::try_from(share).unwrap_or(i64::MAX);
        self.at_most_max(share.max(self.min.unwrap_or(0)))
    }

    fn at_most_max(self, amount: i64) -> i64 {
        self.max.map_or(amount, |max| amount.min(max))
    }
}

impl Selector {
    /// Whether a node with these labels is selected.
    fn matches<'n>(&self, label: impl Fn(&str) -> Option<&'n str>) -> bool {
        self.match_labels.iter().all(|(key, value)| label(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| {
                let value = label(&requirement.key);
                let listed = value.is_some_and(|value| requirement.values.iter().any(|other| other == value));
                match requirement.operator {
                    Operator::In => listed,
                    Operator::NotIn => !listed,
                    Operator::Exists => value.is_some(),
                    Operator::DoesNotExist => value.is_none(),
                    Operator::Gt => requirement.compare(value).is_some_and(Ordering::is_gt),
                    Operator::Lt => requirement.compare(value).is_some_and(Ordering::is_lt),
                }
            })
    }
}

impl Requirement {
    fn check(&self) -> Result<(), &'static str> {
        match self.operator {
            Operator::In | Operator::NotIn if self.values.is_empty() => Err("In and NotIn need values"),
            Operator::Exists | Operator::DoesNotExist if !self.values.is_empty() => {
                Err("Exists and DoesNotExist take no values")
            }
            Operator::Gt | Operator::Lt if self.bound().is_none() => Err("Gt and Lt need one integer"),
            _ => Ok(()),
        }
    }

    /// The one value as an integer.
    fn bound(&self) -> Option<i64> {
        let [value] = self.values.as_slice() else { return None };
        value.parse().ok()
    }

    /// How the value of the label compares; `None` if it isn't an integer (`Requirement.Matches` of
    /// k8s.io/apimachinery/pkg/labels).
    fn compare(&self, value: Option<&str>) -> Option<Ordering> {
        Some(value?.parse::<i64>().ok()?.cmp(&self.bound()?))
    }
}

impl Share {
    /// In ten-millionths of a percent.
    fn parse(&self) -> Result<u32, &'static str> {
        let invalid = "must be a percentage above 0% and at most 100%, such as 0.5%";
        let number = self.0.strip_suffix('%').ok_or(invalid)?;
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(decimals) || whole.len() > 3 || decimals.len() > 7 {
            return Err(invalid);
        }
        let whole: u32 = whole.parse().map_err(|_| invalid)?;
        let decimals: u32 = format!("{decimals:0<7}").parse().map_err(|_| invalid)?;
        let share = whole * PERCENT + decimals;
        if (1..=100 * PERCENT).contains(&share) { Ok(share) } else { Err(invalid) }
    }
}

fn rules(size: &Size, field: &str) -> Result<PerResource<Rule>, TemplateError> {
    PerResource::try_from_fn(|resource| {
        let (percent, min, max) = match resource {
            SizedResource::Cpu => (size.cpu_percentage, &size.min_cpu, &size.max_cpu),
            SizedResource::Memory => (size.memory_percentage, &size.min_memory, &size.max_memory),
            SizedResource::Storage => (size.storage_percentage, &size.min_storage, &size.max_storage),
        };
        let (percent_field, min_field, max_field) = match resource {
            SizedResource::Cpu => ("cpuPercentage", "minCPU", "maxCPU"),
            SizedResource::Memory => ("memoryPercentage", "minMemory", "maxMemory"),
            SizedResource::Storage => ("storagePercentage", "minStorage", "maxStorage"),
        };
        if percent.is_some_and(|percent| !(1..=100).contains(&percent)) {
            return Err(TemplateError(format!("{field}.{percent_field}: must be from 1 to 100")));
        }
        let (share, share_field) = match resource {
            SizedResource::Cpu => (&size.cpu_share, "cpuShare"),
            SizedResource::Memory => (&size.memory_share, "memoryShare"),
            SizedResource::Storage => (&size.storage_share, "storageShare"),
        };
        let share = share.as_ref().map(Share::parse).transpose();
        let share = share.map_err(|problem| TemplateError(format!("{field}.{share_field}: {problem}")))?;
        if share.is_some() && percent.is_some() {
            let problem = format!("{field}.{share_field}: replaces {percent_field}, set only one of them");
            return Err(TemplateError(problem));
        }
        let share = share.or(percent.map(|percent| u32::from(percent) * PERCENT));
        let amount = |amount: &Option<Amount>, name: &str| {
            let amount = amount.as_ref().map(|amount| amount.parse(resource)).transpose();
            amount.map_err(|problem| TemplateError(format!("{field}.{name}: {problem}")))
        };
        let min = amount(min, min_field)?;
        let max = amount(max, max_field)?;
        if min.zip(max).is_some_and(|(min, max)| min > max) {
            let problem = format!("{field}.{max_field}: must be at least {field}.{min_field}");
            return Err(TemplateError(problem));
        }
        Ok(Rule { share, min, max })
    })
}

impl Amount {
    fn parse(&self, resource: SizedResource) -> Result<i64, String> {
        let amount = match self {
            Self::Text(text) => resource.parse(text),
            Self::Number(number) => resource.parse(&number.to_string()),
        };
        match amount {
            Ok(amount) if amount >= 0 => Ok(amount),
            Ok(_) => Err("must not be negative".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}
