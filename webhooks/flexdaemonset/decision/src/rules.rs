//! A template as decisions read it: numbers instead of texts, checked.

use serde_json::Value;

use crate::node::Node;
use crate::resource::{Each, Resource};
use crate::template::{
    Amount, ContainerShare, Distribution, LimitPolicy, Limits, Operator, Refit, Requirement, Selector, Size,
    TemplateSpec, WhenMinExceedsAllocatable,
};

/// What a template says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// `distribution`.
    pub distribution: Distribution,
    /// `containers`.
    pub containers: Vec<ContainerShare>,
    /// `limits`.
    pub limits: Each<LimitPolicy>,
    /// `whenMinExceedsAllocatable`.
    pub when_min_exceeds_allocatable: WhenMinExceedsAllocatable,
    /// `refit`.
    pub refit: Refit,
    base: Each<Rule>,
    overrides: Vec<(Selector, Each<Rule>)>,
}

/// How much of one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Percent of the node's allocatable, 1 to 100.
    pub percent: Option<u8>,
    /// The floor, in millicores or bytes.
    pub min: Option<i64>,
    /// The ceiling, in millicores or bytes.
    pub max: Option<i64>,
}

/// What a rule comes to on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// Nothing: the pod keeps what its own template says.
    Own,
    /// So many millicores or bytes, never zero.
    Amount(i64),
}

/// Why a template isn't one; the text names the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(String);

impl Template {
    /// Reads the `spec` of a template.
    ///
    /// # Errors
    /// Something that the schema of the `CustomResourceDefinition` wouldn't have let in.
    pub fn from_spec(spec: &Value) -> Result<Self, TemplateError> {
        let spec: TemplateSpec = serde_path_to_error::deserialize(spec)
            .map_err(|error| TemplateError(format!("spec.{}: {}", error.path(), error.inner())))?;
        let mut overrides = Vec::new();
        for (index, other) in spec.overrides.into_iter().enumerate() {
            for Requirement { operator, values, key } in &other.node_selector.match_expressions {
                if matches!(operator, Operator::In | Operator::NotIn) == values.is_empty() {
                    let wrong = format!(
                        "spec.overrides[{index}].nodeSelector: {key} has values exactly for In and NotIn"
                    );
                    return Err(TemplateError(wrong));
                }
            }
            overrides.push((other.node_selector, rules(&other.size, &format!("spec.overrides[{index}]."))?));
        }
        let Limits { cpu, memory, storage } = spec.limits;
        let template = Self {
            distribution: spec.distribution,
            containers: spec.containers,
            limits: Each([cpu, memory, storage]),
            when_min_exceeds_allocatable: spec.when_min_exceeds_allocatable,
            refit: spec.refit,
            base: rules(&spec.size, "spec.")?,
            overrides,
        };
        template.check_shares()?;
        Ok(template)
    }

    fn check_shares(&self) -> Result<(), TemplateError> {
        let wrong = |reason: &str| Err(TemplateError(format!("spec.containers: {reason}")));
        if self.distribution == Distribution::Replicate && !self.containers.is_empty() {
            return wrong("only distribution Split shares a value out");
        }
        for share in &self.containers {
            let said = [share.percent.is_some(), share.weight.is_some(), share.excluded];
            if said.into_iter().filter(|said| *said).count() != 1 {
                return wrong("each takes one of percent, weight and excluded");
            }
            if share.percent.is_some_and(|percent| !(1..=100).contains(&percent)) || share.weight == Some(0) {
                return wrong("percent is from 1 to 100, weight at least 1");
            }
        }
        let percents = self.containers.iter().filter_map(|share| share.percent).map(u32::from);
        if percents.sum::<u32>() > 100 { wrong("the percentages sum to more than 100") } else { Ok(()) }
    }

    /// What it says about `resource` on `node`; where an override leaves something out, as for all nodes.
    pub fn rule(&self, resource: Resource, node: &Node) -> Rule {
        let base = *self.base.get(resource);
        let matching = self.overrides.iter().find(|(selector, _)| selector.matches(|key| node.label(key)));
        match matching.map(|(_, rules)| *rules.get(resource)) {
            None => base,
            Some(other) => Rule {
                percent: other.percent.or(base.percent),
                min: other.min.or(base.min),
                max: other.max.or(base.max),
            },
        }
    }

    /// What its rule for `resource` comes to on `node`.
    pub fn budget(&self, resource: Resource, node: &Node) -> Budget {
        let rule = self.rule(resource, node);
        let allocatable = *node.allocatable.get(resource);
        if let (Some(min), Some(allocatable)) = (rule.min, allocatable)
            && min > allocatable
        {
            match self.when_min_exceeds_allocatable {
                WhenMinExceedsAllocatable::KeepMin => {}
                WhenMinExceedsAllocatable::Cap => return Budget::amount(rule.at_most(allocatable)),
                WhenMinExceedsAllocatable::UseTemplate => return Budget::Own,
            }
        }
        Budget::amount(rule.value(allocatable))
    }
}

impl Budget {
    /// Zero is no size: the resource is left out.
    fn amount(amount: i64) -> Self {
        if amount > 0 { Self::Amount(amount) } else { Self::Own }
    }
}

impl Rule {
    /// floor(allocatable × percent / 100), at least the floor, at most the ceiling.
    fn value(self, allocatable: Option<i64>) -> i64 {
        let share = i128::from(allocatable.unwrap_or(0)) * i128::from(self.percent.unwrap_or(0)) / 100;
        // A percentage of at most 100 takes nothing beyond the 64 bits that allocatable has.
        let share = i64::try_from(share).unwrap_or(i64::MAX);
        self.at_most(share.max(self.min.unwrap_or(0)))
    }

    fn at_most(self, amount: i64) -> i64 {
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
                }
            })
    }
}

fn rules(size: &Size, prefix: &str) -> Result<Each<Rule>, TemplateError> {
    let cpu = (size.cpu_percentage, &size.min_cpu, &size.max_cpu, ["cpuPercentage", "minCPU", "maxCPU"]);
    let memory = (
        size.memory_percentage,
        &size.min_memory,
        &size.max_memory,
        ["memoryPercentage", "minMemory", "maxMemory"],
    );
    let storage = (
        size.storage_percentage,
        &size.min_storage,
        &size.max_storage,
        ["storagePercentage", "minStorage", "maxStorage"],
    );
    let rule =
        |resource: Resource,
         (percent, min, max, fields): (Option<u8>, &Option<Amount>, &Option<Amount>, [&str; 3])| {
            let [percent_field, min_field, max_field] = fields.map(|field| format!("{prefix}{field}"));
            if percent.is_some_and(|percent| !(1..=100).contains(&percent)) {
                return Err(TemplateError(format!("{percent_field}: must be from 1 to 100")));
            }
            let min = min.as_ref().map(|amount| amount.read(resource, &min_field)).transpose()?;
            let max = max.as_ref().map(|amount| amount.read(resource, &max_field)).transpose()?;
            if let (Some(min), Some(max)) = (min, max)
                && min > max
            {
                return Err(TemplateError(format!("{max_field}: must be at least {min_field}")));
            }
            Ok(Rule { percent, min, max })
        };
    Ok(Each([rule(Resource::Cpu, cpu)?, rule(Resource::Memory, memory)?, rule(Resource::Storage, storage)?]))
}

impl Amount {
    fn read(&self, resource: Resource, field: &str) -> Result<i64, TemplateError> {
        let text = match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
        };
        match resource.read(&text) {
            Ok(amount) if amount >= 0 => Ok(amount),
            Ok(_) => Err(TemplateError(format!("{field}: must not be negative"))),
            Err(error) => Err(TemplateError(format!("{field}: {error}"))),
        }
    }
}
