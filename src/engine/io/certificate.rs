//! Certificate facts for operators, and when to warn. Times are seconds since the Unix epoch.

/// A certificate of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// The subject's distinguished name, or the first alternative names if it is empty.
    pub subject: String,
    /// RFC 5280's `notBefore`.
    pub not_before: u64,
    /// RFC 5280's `notAfter`.
    pub not_after: u64,
}

/// Whether a certificate's dates make clients accept it at a given time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Valid.
    Valid,
    /// Valid, but expires soon.
    EndsSoon,
    /// Not yet valid.
    NotYetValid,
    /// Expired.
    Expired,
}

impl Validity {
    /// Returns whether clients accept the certificate.
    pub fn is_valid(self) -> bool {
        matches!(self, Validity::Valid | Validity::EndsSoon)
    }
}

impl CertificateInfo {
    /// Returns the validity at `now`.
    pub fn validity(&self, now: u64) -> Validity {
        match self.not_after.checked_sub(now) {
            _ if now < self.not_before => Validity::NotYetValid,
            None => Validity::Expired,
            Some(left) if left < EXPIRY_WARNING => Validity::EndsSoon,
            Some(_) => Validity::Valid,
        }
    }

    /// Returns whether the certificate should have been renewed: it expires soon, and the last
    /// third of its lifetime has begun. The second condition exempts certificates with a lifetime
    /// of a few days, which always expire soon.
    pub fn is_overdue(&self, now: u64) -> bool {
        let lifetime = self.not_after.saturating_sub(self.not_before);
        match self.validity(now) {
            Validity::Valid => false,
            Validity::EndsSoon => self.not_after - now < lifetime / 3,
            Validity::NotYetValid | Validity::Expired => true,
        }
    }
}

/// How long before expiry warnings begin: 14 days.
pub const EXPIRY_WARNING: u64 = 14 * 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity_follows_dates_with_expiry_warning() {
        const DAY: u64 = 86_400;
        let info = |days: u64| CertificateInfo {
            subject: String::new(),
            not_before: 100 * DAY,
            not_after: (100 + days) * DAY,
        };
        for (days, now, expected, is_overdue) in [
            (90, 100 * DAY - 1, Validity::NotYetValid, true),
            (90, 100 * DAY, Validity::Valid, false),
            (90, 176 * DAY, Validity::Valid, false),
            (90, 176 * DAY + 1, Validity::EndsSoon, true),
            (90, 190 * DAY, Validity::EndsSoon, true),
            (90, 190 * DAY + 1, Validity::Expired, true),
            // A six-day certificate is due for renewal after four days.
            (6, 100 * DAY, Validity::EndsSoon, false),
            (6, 104 * DAY, Validity::EndsSoon, false),
            (6, 104 * DAY + 1, Validity::EndsSoon, true),
        ] {
            let info = info(days);
            assert_eq!(info.validity(now), expected, "{days} days at {now}");
            assert_eq!(info.is_overdue(now), is_overdue, "{days} days at {now}");
            let is_valid = matches!(expected, Validity::Valid | Validity::EndsSoon);
            assert_eq!(expected.is_valid(), is_valid);
        }
    }
}
