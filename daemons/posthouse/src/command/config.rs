//! `posthouse config`

use crate::cli::Config;
use crate::connect::Place;
use crate::failure::Failure;
use crate::output;
use runtime::Document;

/// Every default with its explanation. A test holds it equal to the defaults.
pub(crate) const EXAMPLE: &str = include_str!("../example.toml");

pub(crate) fn run(place: &Place, json: bool, command: Config) -> Result<(), Failure> {
    match command {
        Config::Check => {
            check(place)?;
            output::say(&format!("{} is sound.", place.config.display()));
        }
        Config::Show { section } => show(&place.document()?, section.as_deref(), json)?,
        Config::Example => output::say(EXAMPLE.trim_end()),
    }
    Ok(())
}

/// Reads every section as its daemon does.
pub(crate) fn check(place: &Place) -> Result<(), Failure> {
    sections(&place.document()?).map_err(|failure| Failure::check(failure.to_string()))
}

fn sections(document: &Document) -> Result<(), runtime::Failure> {
    let suite = document.suite()?;
    let mut known = vec!["suite", "store", "blob", "dns"];
    macro_rules! daemons {
        ($($daemon:ident)*) => {$(
            known.push(stringify!($daemon));
            let config: $daemon::Config = document.section(stringify!($daemon))?;
            let setting = runtime::Setting {
                suite: suite.clone(),
                document: document.clone(),
                state_dir: suite.state_dir.clone(),
            };
            $daemon::needs(&config, &setting)?;
        )*};
    }
    daemons!(keyd authd stored deliverd relayd queued smtpd indexd imapd pop3d sieved certd limitd reportd hookd httpd);
    document.section::<store::Config>("store")?;
    document.section::<blob::Config>("blob")?;
    document
        .section::<zone::Config>("dns")?
        .validate()
        .map_err(runtime::Failure::new)?;
    let relayd: relayd::Config = document.section("relayd")?;
    let smtpd: smtpd::Config = document.section("smtpd")?;
    let routes: Vec<String> = relayd
        .route
        .iter()
        .map(relayd::RouteConfig::effective_name)
        .collect();
    // What the operator's own tool sends comes from no listener.
    let listeners: Vec<String> = smtpd
        .listener
        .iter()
        .map(|listener| listener.name.clone())
        .chain(["local".to_owned()])
        .collect();
    queued::check_rules(&document.section("queued")?, &routes, &listeners)?;
    limitd::check_listeners(&document.section("limitd")?, &listeners)?;
    document.only(&known)
}

fn show(document: &Document, section: Option<&str>, json: bool) -> Result<(), Failure> {
    let mut table = document.table().clone();
    if let Some(section) = section {
        let found = table.remove(section);
        table = toml::Table::new();
        if let Some(found) = found {
            table.insert(section.to_owned(), found);
        }
    }
    hide(&mut table);
    if json {
        output::print(&serde_json::to_value(&table).unwrap_or_default());
    } else {
        output::say(table.to_string().trim_end());
    }
    Ok(())
}

/// Secrets that stand in the file itself are not shown.
fn hide(table: &mut toml::Table) {
    for (key, value) in table.iter_mut() {
        let secret = ["password", "secret", "token"]
            .iter()
            .any(|word| key.contains(word))
            && !key.ends_with("_file");
        match value {
            toml::Value::Table(below) => hide(below),
            toml::Value::Array(items) => items
                .iter_mut()
                .filter_map(toml::Value::as_table_mut)
                .for_each(hide),
            toml::Value::String(text) if secret => "(hidden)".clone_into(text),
            // postgres://user:password@host
            toml::Value::String(text) if text.contains("://") && text.contains('@') => {
                if let (Some((scheme, rest)), true) = (text.split_once("://"), text.contains(':'))
                    && let Some((user, host)) = rest.rsplit_once('@')
                {
                    let user = user.split(':').next().unwrap_or_default();
                    *text = format!("{scheme}://{user}:(hidden)@{host}");
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The defaults of all sections, as the daemons know them.
    fn defaults() -> toml::Table {
        let mut table = toml::Table::new();
        let mut add = |name: &str, section: Result<toml::Table, toml::ser::Error>| {
            table.insert(name.to_owned(), toml::Value::Table(section.unwrap()));
        };
        add("suite", toml::Table::try_from(runtime::Suite::default()));
        add("store", toml::Table::try_from(store::Config::default()));
        add("blob", toml::Table::try_from(blob::Config::default()));
        add("dns", toml::Table::try_from(zone::Config::default()));
        add("keyd", toml::Table::try_from(keyd::Config::default()));
        add("authd", toml::Table::try_from(authd::Config::default()));
        add("stored", toml::Table::try_from(stored::Config::default()));
        add(
            "deliverd",
            toml::Table::try_from(deliverd::Config::default()),
        );
        add("relayd", toml::Table::try_from(relayd::Config::default()));
        add("queued", toml::Table::try_from(queued::Config::default()));
        add("smtpd", toml::Table::try_from(smtpd::Config::default()));
        add("indexd", toml::Table::try_from(indexd::Config::default()));
        add("imapd", toml::Table::try_from(imapd::Config::default()));
        add("pop3d", toml::Table::try_from(pop3d::Config::default()));
        add("sieved", toml::Table::try_from(sieved::Config::default()));
        add("certd", toml::Table::try_from(certd::Config::default()));
        add("limitd", toml::Table::try_from(limitd::Config::default()));
        add("reportd", toml::Table::try_from(reportd::Config::default()));
        add("hookd", toml::Table::try_from(hookd::Config::default()));
        add("httpd", toml::Table::try_from(httpd::Config::default()));
        table
    }

    /// Both texts in full when they differ: take over what is new.
    #[test]
    fn the_example_is_what_holds_without_a_file() {
        let example: toml::Table = EXAMPLE.parse().unwrap();
        assert_eq!(example.to_string(), defaults().to_string());
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut table: toml::Table =
            "a = { url = 'postgres://me:secret@db/x', api_secret = 's', password_file = '/f' }"
                .parse()
                .unwrap();
        hide(&mut table);
        let text = table.to_string();
        assert!(
            !text.contains("secret@") && !text.contains("'s'") && text.contains("/f"),
            "{text}"
        );
    }
}
