//! Which addresses may be asked. Tenants choose the hosts, and so where they lead.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far a request may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AddressPolicy {
    /// A registry: any address but those of this machine and its link.
    Registry,
    /// A redirect or token server of a registry with a public address: public addresses only.
    Internet,
    /// An identity service of a cloud: any address. No address of a registry leads to this policy.
    Identity,
}

impl AddressPolicy {
    /// Whether this address may be reached.
    pub(crate) fn allows(self, address: IpAddr) -> bool {
        let address = embedded(address);
        match self {
            Self::Registry => !is_local(address),
            Self::Internet => !is_local(address) && !is_private(address),
            Self::Identity => true,
        }
    }
}

/// The IPv4 address in an IPv6 address of a notation for it (mapped, compatible, NAT64, 6to4), or the address itself.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(address) = address else { return address };
    let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match address.segments() {
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => v4(high, low),
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => v4(high, low),
        _ => IpAddr::V6(address),
    }
}

/// Metadata services of clouds that are not link-local: EC2, EKS Pod Identity, Google, Scaleway; Alibaba, Azure.
const METADATA: [IpAddr; 6] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

/// Loopback, link-local (where most clouds have their metadata), metadata, unspecified, multicast.
fn is_local(address: IpAddr) -> bool {
    let is_local = match address {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.octets()[0] == 0
                || v4.is_multicast()
                || v4.is_broadcast()
        }
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local()
        }
    };
    is_local || METADATA.contains(&address)
}

/// Addresses that mean something on a private network alone (RFC 1918, RFC 6598, RFC 4193, RFC 2544).
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private() || (a == 100 && b & 0xc0 == 64) || (a == 198 && b & 0xfe == 18)
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.segments()[0] & 0xffc0 == 0xfec0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_decides_by_address() {
        for (address, registry, internet) in [
            ("8.8.8.8", true, true),
            ("2606:4700::1111", true, true),
            ("10.1.2.3", true, false),
            ("100.64.0.1", true, false),
            ("192.168.1.1", true, false),
            ("fd12::1", true, false),
            ("::ffff:10.1.2.3", true, false),
            ("64:ff9b::8.8.8.8", true, true),
            ("127.0.0.1", false, false),
            ("127.8.9.1", false, false),
            ("0.0.0.0", false, false),
            ("0.1.2.3", false, false),
            ("169.254.169.254", false, false),
            ("::1", false, false),
            ("::", false, false),
            ("fe80::1", false, false),
            ("ff02::1", false, false),
            ("fd00:ec2::254", false, false),
            ("fd00:ec2::23", false, false),
            ("fd20:ce::254", false, false),
            ("fd00:42::42", false, false),
            ("100.100.100.200", false, false),
            ("::ffff:100.100.100.200", false, false),
            ("168.63.129.16", false, false),
            ("64:ff9b::168.63.129.16", false, false),
            ("::ffff:127.0.0.1", false, false),
            ("::ffff:169.254.169.254", false, false),
            ("::127.0.0.1", false, false),
            ("64:ff9b::127.0.0.1", false, false),
            ("2002:7f00:1::", false, false),
            ("255.255.255.255", false, false),
        ] {
            let ip = address.parse().unwrap();
            assert_eq!(
                (AddressPolicy::Registry.allows(ip), AddressPolicy::Internet.allows(ip)),
                (registry, internet),
                "{address}"
            );
        }
    }
}
