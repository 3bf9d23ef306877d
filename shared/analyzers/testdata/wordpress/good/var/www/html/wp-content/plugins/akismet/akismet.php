<?php
/**
 * @package Akismet
 */
/*
Plugin Name: Akismet Anti-spam: Spam Protection
Plugin URI: https://akismet.com/
Version: 5.3
Author: Automattic
License: GPLv2 or later
Text Domain: akismet
*/
