//! Where an http worker's requests go: a URL taken apart, and which addresses lie on the open internet.
//!
//! Pure: looks no name up. What it lets pass stands as it is in a request's head, and in no log line but by its host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest URL, in bytes.
const URL_BYTES_MAX: usize = 2048;
/// A cloud's metadata service on an address that is no private one.
const METADATA: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

/// A URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Whether it is https.
    pub tls: bool,
    /// Name, or address without brackets; in small letters.
    pub host: String,
    /// Port, given or the scheme's own.
    pub port: u16,
    /// What `Host` says: the port is left out if it is the scheme's own.
    pub authority: String,
    /// Path and query, beginning with a slash.
    pub path: String,
}

impl Target {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// What to write instead.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (tls, rest) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            _ => return Err("write a whole URL, like \"https://example.com/hook\"".to_owned()),
        };
        if url.len() > URL_BYTES_MAX {
            return Err(format!("the most is {URL_BYTES_MAX} bytes"));
        }
        let plain =
            |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}');
        if let Some(bad) = rest.chars().find(|c| !plain(*c)) {
            return Err(format!("write {bad:?} percent-encoded, and a name of other letters in its xn-- form"));
        }
        if rest.contains('#') {
            return Err("leave out what follows #: it is never sent".to_owned());
        }
        let split = rest.find(['/', '?']).unwrap_or(rest.len());
        let (place, path) = rest.split_at(split);
        if place.contains('@') {
            return Err("no user or password in a URL: set `headers.Authorization` instead".to_owned());
        }
        let (host, port) = split_port(place)?;
        let own_port = if tls { 443 } else { 80 };
        let port = port.unwrap_or(own_port);
        let shown = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let authority = if port == own_port { shown } else { format!("{shown}:{port}") };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { tls, host, port, authority, path })
    }

    /// The host, if it is an address and not a name.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

/// Host in small letters, and the port if one is given.
/// The addresses of this machine itself, where a name always means it (RFC 6761): no file and no service is asked.
pub fn own_addresses(name: &str) -> Option<[IpAddr; 2]> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_own = name == "localhost" || name.ends_with(".localhost");
    is_own.then_some([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
}

fn split_port(place: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or("close the bracket after the address")?;
            host.parse::<Ipv6Addr>().map_err(|_| "write an IPv6 address in the brackets")?;
            let port = if after.is_empty() { None } else { Some(after.strip_prefix(':').unwrap_or(after)) };
            (host, port)
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.is_empty() || (!place.starts_with('[') && !host.chars().all(named)) {
        return Err("name a host, like \"https://example.com/hook\"".to_owned());
    }
    let port = match port.map(str::parse) {
        None => None,
        Some(Ok(port)) if port != 0 => Some(port),
        Some(_) => return Err("a port lies between 1 and 65535".to_owned()),
    };
    Ok((host.to_ascii_lowercase(), port))
}

/// Whether an address lies on the open internet: not this machine, not its neighbours, not a cloud's metadata service, and
/// none of the ranges that are kept for other purposes.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => match v6.segments() {
            // An IPv4 address in other clothes: mapped, or behind a translator.
            [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                is_public_v4(Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low)))
            }
            // Protocol assignments and Teredo, documentation, 6to4.
            [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => false,
            [first, ..] => first & 0xe000 == 0x2000,
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        [0 | 10 | 127, ..] | [169, 254, ..] | [192, 168, ..] => true,
        [172, second, ..] => second & 0xf0 == 16,
        [100, second, ..] => second & 0xc0 == 64,
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => true,
        [first, ..] => first >= 224,
    };
    !special && address != METADATA
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_this_machine_and_nothing_else_is() {
        for own in ["localhost", "LocalHost.", "a.localhost", "a.b.localhost."] {
            assert!(own_addresses(own).unwrap().iter().all(IpAddr::is_loopback), "{own}");
        }
        for other in ["localhost.example.com", "mylocalhost", "local", "", "."] {
            assert_eq!(own_addresses(other), None, "{other}");
        }
    }

    #[test]
    fn a_url_is_taken_apart_or_told_what_it_lacks() {
        let target = Target::parse("HTTPS://Hooks.Example.com/a/b?c=d").unwrap();
        assert_eq!((target.tls, target.host.as_str(), target.port), (true, "hooks.example.com", 443));
        assert_eq!((target.authority.as_str(), target.path.as_str()), ("hooks.example.com", "/a/b?c=d"));
        let target = Target::parse("http://[::1]:8080?x").unwrap();
        assert_eq!((target.host.as_str(), target.port), ("::1", 8080));
        assert_eq!((target.authority.as_str(), target.path.as_str()), ("[::1]:8080", "/?x"));
        assert_eq!(Target::parse("http://a:443").unwrap().authority, "a:443");
        assert_eq!(Target::parse("https://a:443").unwrap().authority, "a");
        for (url, told) in [
            ("example.com/hook", "whole URL"),
            ("ftp://example.com", "whole URL"),
            ("https://", "name a host"),
            ("https:///hook", "name a host"),
            ("https://user:word@example.com/", "Authorization"),
            ("https://example.com:0/", "port"),
            ("https://example.com:66000/", "port"),
            ("https://[::1/", "bracket"),
            ("https://[1.2.3.4]/", "IPv6"),
            ("https://exämple.com/", "xn--"),
            ("https://example.com/a b", "percent-encoded"),
            ("https://example.com/\r\nX: y", "percent-encoded"),
            ("https://example.com/#part", "#"),
            ("https://a,b/", "name a host"),
        ] {
            let error = Target::parse(url).unwrap_err();
            assert!(error.contains(told), "{url}: {error}");
        }
        assert!(Target::parse(&format!("http://a/{}", "x".repeat(2048))).is_err());
    }

    #[test]
    fn security_12_addresses_of_this_machine_its_neighbours_and_metadata_are_not_public() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.100.100.200",
            "192.0.0.192",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "fec0::1",
            "3fff::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "198.17.0.1",
            "223.1.1.1",
            "2606:4700::1111",
            "2a00:1450::8a",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2001:4860:4860::8888",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
