"""Access to the dashboard: logins, and the roles of viewers and operators."""
