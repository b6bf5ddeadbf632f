//! Values of columns and parameters.

use std::fmt;

/// A value.
///
/// The type says which kinds it takes, see [`DataType`](crate::types::DataType).
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// NULL, of every type.
    Null,
    /// bit.
    Bit(bool),
    /// tinyint, which has no sign.
    TinyInt(u8),
    /// smallint.
    SmallInt(i16),
    /// int.
    Int(i32),
    /// bigint.
    BigInt(i64),
    /// real.
    Real(f32),
    /// float.
    Float(f64),
    /// money and smallmoney, in ten-thousandths.
    Money(i64),
    /// decimal and numeric.
    Decimal(Decimal),
    /// date.
    Date(Date),
    /// time.
    Time(Time),
    /// smalldatetime: minutes of the day.
    SmallDateTime {
        /// Days since 1900-01-01.
        days: u16,
        /// Minutes since midnight, below 1440.
        minutes: u16,
    },
    /// datetime.
    DateTime {
        /// Days since 1900-01-01; -53690 is the first day of 1753.
        days: i32,
        /// Three-hundredths of a second since midnight.
        ticks: u32,
    },
    /// datetime2.
    DateTime2(Date, Time),
    /// datetimeoffset.
    DateTimeOffset {
        /// The date in UTC.
        date: Date,
        /// The time in UTC.
        time: Time,
        /// What local time has more than UTC; minutes, -840 to 840.
        offset: i16,
    },
    /// uniqueidentifier.
    Guid(Guid),
    /// char, varchar, nchar, nvarchar, text and ntext.
    Text(String),
    /// binary, varbinary and image.
    Binary(Vec<u8>),
}

impl Value {
    /// The name of the kind, for messages.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Bit(_) => "bit",
            Self::TinyInt(_) => "tinyint",
            Self::SmallInt(_) => "smallint",
            Self::Int(_) => "int",
            Self::BigInt(_) => "bigint",
            Self::Real(_) => "real",
            Self::Float(_) => "float",
            Self::Money(_) => "money",
            Self::Decimal(_) => "decimal",
            Self::Date(_) => "date",
            Self::Time(_) => "time",
            Self::SmallDateTime { .. } => "smalldatetime",
            Self::DateTime { .. } => "datetime",
            Self::DateTime2(..) => "datetime2",
            Self::DateTimeOffset { .. } => "datetimeoffset",
            Self::Guid(_) => "uniqueidentifier",
            Self::Text(_) => "text",
            Self::Binary(_) => "binary",
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A number with a fixed number of decimal places: `magnitude` / 10^`scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decimal {
    /// Below zero.
    pub is_negative: bool,
    /// All digits, at most 38.
    pub magnitude: u128,
    /// How many of them follow the decimal point, at most 38.
    pub scale: u8,
}

impl Decimal {
    /// The largest magnitude: 38 nines.
    pub const MAX_MAGNITUDE: u128 = 10u128.pow(38) - 1;
}

impl From<i64> for Decimal {
    fn from(number: i64) -> Self {
        Self { is_negative: number < 0, magnitude: u128::from(number.unsigned_abs()), scale: 0 }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = usize::from(self.scale);
        let digits = format!("{:0>width$}", self.magnitude, width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        let sign = if self.is_negative { "-" } else { "" };
        let point = if scale > 0 { "." } else { "" };
        write!(out, "{sign}{whole}{point}{fraction}")
    }
}

/// A day of the Gregorian calendar, 0001-01-01 to 9999-12-31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(u32);

impl Date {
    /// 9999-12-31, as a number of days.
    pub const MAX_DAYS: u32 = 3_652_058;

    /// The day that many days after 0001-01-01. `None`: after 9999-12-31.
    #[must_use]
    pub const fn from_days(days: u32) -> Option<Self> {
        if days <= Self::MAX_DAYS { Some(Self(days)) } else { None }
    }

    /// Days since 0001-01-01.
    #[must_use]
    pub const fn days(self) -> u32 {
        self.0
    }

    /// A day by its parts. `None`: there is no such day.
    ///
    /// ```
    /// use vdi_tds::value::Date;
    ///
    /// assert_eq!(Date::from_ymd(1900, 1, 1).map(Date::days), Some(693_595));
    /// assert_eq!(Date::from_ymd(2023, 2, 29), None);
    /// ```
    #[must_use]
    pub fn from_ymd(year: u16, month: u8, day: u8) -> Option<Self> {
        if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || day == 0 || day > month_len(year, month) {
            return None;
        }
        let months: u32 = (1..month).map(|month| u32::from(month_len(year, month))).sum();
        Some(Self(days_before(year) + months + u32::from(day) - 1))
    }

    /// Year, month and day.
    #[must_use]
    pub fn ymd(self) -> (u16, u8, u8) {
        // 400 years have 146,097 days. The quotient is at most one year too large.
        let mut year = (u64::from(self.0) * 400 / 146_097 + 1).min(9999) as u16;
        while days_before(year) > self.0 {
            year -= 1;
        }
        while year < 9999 && days_before(year + 1) <= self.0 {
            year += 1;
        }
        let (mut left, mut month) = ((self.0 - days_before(year)) as u16, 1);
        while left >= u16::from(month_len(year, month)) {
            left -= u16::from(month_len(year, month));
            month += 1;
        }
        (year, month, left as u8 + 1)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.ymd();
        write!(out, "{year:04}-{month:02}-{day:02}")
    }
}

/// Days from 0001-01-01 to the first of January of `year`, which is 1 or later.
fn days_before(year: u16) -> u32 {
    let years = u32::from(year) - 1;
    years * 365 + years / 4 - years / 100 + years / 400
}

fn month_len(year: u16, month: u8) -> u8 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// A time of the day, in units of 100 ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The units of a second.
    pub const SECOND: u64 = 10_000_000;
    /// The units of a day.
    pub const DAY: u64 = 86_400 * Self::SECOND;

    /// A time by its units of 100 ns. `None`: a day or more.
    #[must_use]
    pub const fn from_ticks(ticks: u64) -> Option<Self> {
        if ticks < Self::DAY { Some(Self(ticks)) } else { None }
    }

    /// Units of 100 ns since midnight.
    #[must_use]
    pub const fn ticks(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Time {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, fraction) = (self.0 / Self::SECOND, self.0 % Self::SECOND);
        write!(out, "{:02}:{:02}:{:02}.{fraction:07}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }
}

/// A uniqueidentifier, as its bytes on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Guid(pub [u8; 16]);

impl fmt::Display for Guid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a0, a1, a2, a3, b0, b1, c0, c1, d @ ..] = self.0;
        let (a, b, c) =
            (u32::from_le_bytes([a0, a1, a2, a3]), u16::from_le_bytes([b0, b1]), u16::from_le_bytes([c0, c1]));
        write!(out, "{a:08X}-{b:04X}-{c:04X}-{:02X}{:02X}-", d[0], d[1])?;
        d[2..].iter().try_for_each(|byte| write!(out, "{byte:02X}"))
    }
}
