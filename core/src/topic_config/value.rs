//! Types and ranges of settings.

/// The type of a setting, numbered as in DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigType {
    /// `true` or `false`.
    Boolean = 1,
    /// Text.
    String = 2,
    /// 32 bits.
    Int = 3,
    /// 16 bits.
    Short = 4,
    /// 64 bits.
    Long = 5,
    /// A fraction.
    Double = 6,
    /// Texts, separated by commas.
    List = 7,
}

/// The values that a setting can have. Bounds are inclusive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// `false`; `true` is refused for the reason given.
    OnlyFalse(&'static str),
    /// A 16-bit number of at least this.
    Short(i16),
    /// A 32-bit number of at least the first and at most the second.
    Int(i32, i32),
    /// A 64-bit number of at least this.
    Long(i64),
    /// A fraction of at least the first and at most the second.
    Double(f64, f64),
    /// Any text.
    Text,
    /// One of these.
    Choice(&'static [&'static str]),
    /// Any of these, separated by commas.
    Choices(&'static [&'static str]),
    /// Any texts, separated by commas.
    List,
    /// `*`, or `partition:broker` pairs separated by commas.
    Replicas,
}

impl Kind {
    /// The type as clients see it.
    pub fn config_type(&self) -> ConfigType {
        match self {
            Self::Boolean | Self::OnlyFalse(_) => ConfigType::Boolean,
            Self::Short(_) => ConfigType::Short,
            Self::Int(..) => ConfigType::Int,
            Self::Long(_) => ConfigType::Long,
            Self::Double(..) => ConfigType::Double,
            Self::Text | Self::Choice(_) => ConfigType::String,
            Self::Choices(_) | Self::List | Self::Replicas => ConfigType::List,
        }
    }

    /// Checks a value; an error says what is expected.
    pub fn check(&self, value: &str) -> Result<(), String> {
        let text = value.trim();
        let number = |min: i64, max: i64| match text.parse::<i64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(()),
            Ok(number) if number < min => Err(format!("must be at least {min}")),
            Ok(_) => Err(format!("must be at most {max}")),
            Err(_) => Err("must be a number".to_owned()),
        };
        let is = |wanted: &str| text.eq_ignore_ascii_case(wanted);
        match self {
            Self::Boolean if is("true") || is("false") => Ok(()),
            Self::OnlyFalse(_) if is("false") => Ok(()),
            Self::OnlyFalse(why) if is("true") => Err((*why).to_owned()),
            Self::Boolean | Self::OnlyFalse(_) => Err("must be true or false".to_owned()),
            Self::Short(min) => number(i64::from(*min), i64::from(i16::MAX)),
            Self::Int(min, max) => number(i64::from(*min), i64::from(*max)),
            Self::Long(min) => number(*min, i64::MAX),
            Self::Double(min, max) => match text.parse::<f64>() {
                Ok(number) if (*min..=*max).contains(&number) => Ok(()),
                Ok(_) => Err(format!("must be from {min} to {max}")),
                Err(_) => Err("must be a number".to_owned()),
            },
            Self::Text | Self::List => Ok(()),
            Self::Choice(known) if known.contains(&text) => Ok(()),
            Self::Choice(known) => Err(format!("must be one of {}", known.join(", "))),
            Self::Choices(known) => {
                let mut items = text.split(',').map(str::trim);
                if text.is_empty() || items.all(|item| known.contains(&item)) {
                    Ok(())
                } else {
                    Err(format!("must be a list of {}", known.join(", ")))
                }
            }
            Self::Replicas => {
                let digits =
                    |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                let pair = |item: &str| {
                    let pair = item.trim().split_once(':');
                    pair.is_some_and(|(partition, broker)| digits(partition) && digits(broker))
                };
                if text.is_empty() || text == "*" || text.split(',').all(pair) {
                    Ok(())
                } else {
                    Err("must be * or a list of partition:broker pairs".to_owned())
                }
            }
        }
    }
}
